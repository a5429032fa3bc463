"""Constraints: what they allow, what they refuse, and what the loop makes of them."""

import json
import re
from collections.abc import Callable

import numpy as np
import pytest

from innkeeper.backends.fake import EOS, NUM_VOCAB, ByteTokenizer
from innkeeper.core import Constraint, SamplingParams
from innkeeper.engine.grammar import Grammar, GrammarCompiler
from innkeeper.engine.vocabulary import Vocabulary
from innkeeper.errors import InvalidRequestError
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]

JSON_GBNF = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(Vocabulary(ByteTokenizer(), NUM_VOCAB, (EOS,)))


def letters(grammar: Grammar) -> str:
    """What may come next; "$" stands for the end."""
    ids = np.flatnonzero(grammar.mask()).tolist()
    return "".join("$" if i == EOS else chr(i) for i in ids)


def feed(grammar: Grammar, text: str) -> None:
    for byte in text.encode():
        assert grammar.mask()[byte], f"{chr(byte)!r} in {text!r}"
        grammar.accept(byte)


def test_mask_allows_what_the_expression_allows(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(Constraint("regex", "ab?c|xyz"))
    assert letters(grammar) == "ax"
    feed(grammar, "a")
    assert letters(grammar) == "bc"
    feed(grammar, "c")
    assert letters(grammar) == "$"
    assert grammar.is_finished


def test_end_is_allowed_as_soon_as_the_constraint_is_fulfilled(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(Constraint("regex", "a+"))
    assert letters(grammar) == "a"
    feed(grammar, "a")
    assert letters(grammar) == "a$" and not grammar.is_finished


def test_tokens_can_be_taken_back(compiler: GrammarCompiler) -> None:
    grammar = compiler.compile(Constraint("choice", '["inn", "island"]'))
    feed(grammar, "inn")
    assert grammar.is_finished
    grammar.prepare()
    grammar.rewind(2)
    assert letters(grammar) == "ns"
    feed(grammar, "sland")
    assert grammar.is_finished


def test_mask_computed_ahead_is_the_same(compiler: GrammarCompiler) -> None:
    ahead = compiler.compile(Constraint("json_object"))
    plain = compiler.compile(Constraint("json_object"))
    for byte in b'{"a": [1, {"b": null}]':
        ahead.prepare()
        assert np.array_equal(ahead.mask(), plain.mask())
        ahead.accept(byte)
        plain.accept(byte)


def test_number_ends_after_twenty_digits_in_json_alone(compiler: GrammarCompiler) -> None:
    number, free = Constraint("json_schema", '{"type": "number"}'), Constraint("regex", "[0-9]+x?")
    logits = np.zeros(NUM_VOCAB, np.float32)
    for constraint, goes_on in ((number, False), (free, True)):
        grammar = compiler.compile(constraint)
        feed(grammar, "12345678901234567890")
        allowed = logits.copy()
        assert grammar.restrict(allowed)
        assert bool(allowed[ord("1")] == 0) is goes_on
        grammar.rewind(1)
        allowed = logits.copy()
        grammar.restrict(allowed)
        assert allowed[ord("1")] == 0


@pytest.mark.parametrize(
    ("constraint", "accepted"),
    [
        (Constraint("gbnf", JSON_GBNF), '{"a": [1.5e3, "b\\n"], "c": {}}'),
        (Constraint("gbnf", 'root ::= ("yes" | "no") "."?'), "yes."),
        (Constraint("gbnf", 'root ::= item+\nitem ::= "- " [^\\n]{1,10} "\\n"'), "- ale\n"),
        (Constraint("lark", 'start: "a" word\nword: /[a-c]+/'), "abc"),
        (Constraint("choice", '["yes", "no \\"thanks\\"", "naïve 🐉"]'), 'no "thanks"'),
        (Constraint("choice", '["yes", "no", "naïve 🐉"]'), "naïve 🐉"),
        (Constraint("json_object"), '{\n  "deep": {"er": [1, true, null]}\n}'),
        (Constraint("json_schema", '{"enum": ["a", 3]}'), "3"),
        (Constraint("json_schema", "true"), "[1]"),
    ],
)
def test_each_kind_accepts_what_it_describes(
    compiler: GrammarCompiler, constraint: Constraint, accepted: str
) -> None:
    grammar = compiler.compile(constraint)
    feed(grammar, accepted)
    assert grammar.mask()[EOS]


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("regex", "[a-"),
        Constraint("regex", "(?=look)ahead"),
        Constraint("lark", "start: nothing_like_it"),
        Constraint("gbnf", "root ::= (("),
        Constraint("gbnf", "root ::= missing"),
        Constraint("json_schema", "{"),
        Constraint("json_schema", "[]"),
        Constraint("json_schema", "false"),
        Constraint("json_schema", '{"type": "bogus"}'),
        Constraint("json_schema", '{"$ref": "#/nowhere"}'),
        Constraint("json_schema", '{"not": {"type": "string"}}'),
        Constraint("choice", "[]"),
        Constraint("choice", '["a", 3]'),
        Constraint("choice", '"a"'),
    ],
    ids=lambda c: f"{c.kind} {c.text}",
)
def test_what_cannot_be_compiled_is_refused_with_its_field(
    compiler: GrammarCompiler, constraint: Constraint
) -> None:
    named = Constraint(constraint.kind, constraint.text, "guided_thing")
    with pytest.raises(InvalidRequestError) as caught:
        compiler.compile(named)
    assert caught.value.field == "guided_thing"
    assert "\n" not in caught.value.message


def test_reply_obeys_and_ends_by_itself(make_bench: MakeBench) -> None:
    bench = make_bench()
    ids = [
        bench.submit(
            max_tokens=60,
            constraint=Constraint("regex", "[a-f]{3,7}-[0-9]{2}"),
            sampling=SamplingParams(temperature=1.5, seed=seed),
        )
        for seed in range(20)
    ]
    bench.run()
    for request_id in ids:
        assert re.fullmatch("[a-f]{3,7}-[0-9]{2}", bench.text(request_id))
        assert bench.finished(request_id).reason == "stop"
    assert len({bench.text(request_id) for request_id in ids}) > 10


def test_each_choice_follows_the_constraint_by_itself(bench: Bench) -> None:
    request_id = bench.submit(
        n=4, constraint=Constraint("json_object"), sampling=SamplingParams(seed=1), max_tokens=400
    )
    bench.run()
    texts = [bench.text(request_id, index) for index in range(4)]
    assert len(set(texts)) > 1
    for index, text in enumerate(texts):
        if bench.finished(request_id, index).reason == "stop":
            json.loads(text)


def test_constraint_holds_where_the_end_is_banned(bench: Bench) -> None:
    for fields in ({"ban_eos": True}, {"min_tokens": 50}):
        request_id = bench.submit(
            constraint=Constraint("choice", '["inn"]'),
            sampling=SamplingParams(temperature=0, **fields),
            max_tokens=20,
        )
        bench.run()
        assert bench.text(request_id) == "inn"
        assert bench.finished(request_id).reason == "stop"


def test_bad_constraint_fails_its_request_alone(bench: Bench) -> None:
    bad = bench.submit(constraint=Constraint("regex", "[", "regex_pattern"))
    good = bench.submit(max_tokens=3)
    bench.run()
    assert bench.failed(bad).error.field == "regex_pattern"
    assert bench.finished(good).reason == "length"
