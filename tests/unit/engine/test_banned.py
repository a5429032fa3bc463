"""Banned phrases never show, and what shows instead is what a plain search would find."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from innkeeper.backends.fake import NUM_VOCAB, ByteTokenizer, FakeRunner
from innkeeper.core import Constraint, SamplingParams
from innkeeper.core.frames import Delta
from innkeeper.engine.banned import Automaton, automaton, fold
from innkeeper.engine.reply import ReplyText
from innkeeper.engine.vocabulary import Vocabulary
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]


def first_match(text: str, phrases: list[str]) -> tuple[int, int] | None:
    """By trying everything: the phrase that ends first, of those the longest."""
    low, all_low = text.lower(), tuple(phrase.lower() for phrase in phrases)
    for end in range(1, len(low) + 1):
        if low.endswith(all_low, 0, end):
            return end - max(len(p) for p in all_low if low.endswith(p, 0, end)), end
    return None


def phrases_of(letters: str, count: int, seed: int, longest: int = 6) -> list[str]:
    dice = random.Random(seed)
    return ["".join(dice.choices(letters, k=dice.randint(3, longest))) for _ in range(count)]


@pytest.mark.parametrize("seed", range(200))
def test_automaton_finds_what_a_plain_search_finds(seed: int) -> None:
    dice = random.Random(seed)
    phrases = phrases_of("abAB", dice.randint(1, 8), seed)
    text = "".join(dice.choices("abABc", k=60))
    machine, state, found = Automaton(phrases), 0, None
    for start in range(0, 60, 7):
        state, part = machine.step(state, text[start : start + 7])
        if part is not None:
            found = part.start + start, part.end + start
            break
    assert found == first_match(text, phrases)


def test_automaton_knows_how_much_may_still_become_a_phrase() -> None:
    machine = Automaton(["shivers down", "down her spine"])
    state, found = machine.step(0, "a Shivers DOW")
    assert found is None and machine.num_open(state) == len("shivers dow")
    state, _ = machine.step(state, "e")
    assert machine.num_open(state) == 0


def test_folding_keeps_every_character_in_its_place() -> None:
    text = "İSTANBUL ẞ Ǆ"
    assert len(fold(text)) == len(text)
    assert fold("ÄB") == "äb"


def greedy_without(runner: FakeRunner, prompt: list[int], phrases: list[str], count: int) -> str:
    """The search written plainly: choose, look at the whole text, go back, ban, go on."""
    tokens, bans = list(prompt), {}
    while len(tokens) < len(prompt) + count:
        logits = runner._logits(tokens)
        logits[list(bans.get(len(tokens), ()))] = -np.inf
        tokens.append(int(logits.argmax()))
        text = bytes(tokens[len(prompt) :]).decode()
        match = first_match(text, phrases)
        if match is not None:
            start = len(prompt) + match[0]
            bans = {at: ids for at, ids in bans.items() if at <= start}
            bans.setdefault(start, set()).add(tokens[start])
            del tokens[start:]
    return bytes(tokens[len(prompt) :]).decode()


@pytest.mark.parametrize("seed", range(20))
def test_greedy_reply_equals_the_plain_search(bench: Bench, seed: int) -> None:
    probe = bench.submit(f"prompt {seed}", max_tokens=60)
    bench.run()
    likely = bench.text(probe)
    dice = random.Random(seed)
    cuts = [likely[i : i + dice.randint(3, 7)].upper() for i in range(0, 50, 9)]
    phrases = cuts + phrases_of("abcdefghij ", 30, seed, longest=3)
    request_id = bench.submit(f"prompt {seed}", max_tokens=60, banned=tuple(phrases))
    bench.run()
    prompt = bench.runner.tokenizer.encode(f"prompt {seed}", add_special=True, parse_special=True)
    assert bench.text(request_id) == greedy_without(bench.runner, prompt, phrases, 60)
    bench.engine.cache.check()


def test_none_of_five_hundred_phrases_shows_in_a_thousand_replies(make_bench: MakeBench) -> None:
    bench = make_bench(max_sequences=8, num_pool=4096)
    phrases = phrases_of("abcdefghijklmnopqrstuvwxyz ", 500, 1, longest=4)
    ids = [
        bench.submit(f"{n}", max_tokens=24, banned=tuple(phrases), sampling=SamplingParams(seed=n))
        for n in range(1000)
    ]
    bench.run(max_steps=100_000)
    for request_id in ids:
        assert first_match(bench.text(request_id), phrases) is None
        assert bench.finished(request_id).reason == "length"
    texts: dict[int, str] = {}
    for frame in bench.frames:
        if isinstance(frame, Delta):
            texts[frame.id] = texts.get(frame.id, "") + frame.text
            assert first_match(texts[frame.id], phrases) is None


def test_no_phrases_cost_no_evaluation(bench: Bench) -> None:
    plain = bench.submit("same", max_tokens=50)
    bench.run()
    before = bench.runner.num_evaluated
    other = bench.submit("same", max_tokens=50, banned=("never to be seen",) * 500)
    bench.run()
    assert bench.text(plain) == bench.text(other)
    assert bench.runner.num_evaluated - before <= 50


def test_stop_string_before_a_phrase_ends_the_reply(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "I go. User: shivers down"})
    request_id = bench.submit(max_tokens=40, stop=("User:",), banned=("User: shivers",))
    bench.run()
    assert bench.text(request_id) == "I go. "
    assert bench.finished(request_id).stop_text == "User:"


def test_text_held_for_a_phrase_comes_when_the_reply_ends(make_bench: MakeBench) -> None:
    bench = make_bench(options={"reply": "It is a shiver"})
    request_id = bench.submit(max_tokens=40, banned=("a shiver down",))
    bench.run()
    assert bench.text(request_id) == "It is a shiver"


def test_logprobs_are_of_the_tokens_that_stay(bench: Bench) -> None:
    first = bench.submit("x", max_tokens=12)
    bench.run()
    phrase = bench.text(first)[3:7]
    request_id = bench.submit("x", max_tokens=30, banned=(phrase,), logprobs=0)
    bench.run()
    deltas = [f for f in bench.frames if isinstance(f, Delta) and f.id == request_id]
    entries = [entry for frame in deltas for entry in frame.logprobs]
    assert b"".join(entry.piece for entry in entries).decode() == bench.text(request_id)
    assert bench.finished(request_id).timings.predicted_n == 30 == len(entries)


def test_history_of_samplers_goes_back_too(bench: Bench) -> None:
    sampling = SamplingParams(
        temperature=0, repetition_penalty=1.2, dry_multiplier=0.8, frequency_penalty=0.3
    )
    plain = bench.submit("y", max_tokens=40, sampling=sampling)
    bench.run()
    phrase = bench.text(plain)[10:14]
    banned = bench.submit("y", max_tokens=40, sampling=sampling, banned=(phrase,))
    bench.run()
    text = bench.text(banned)
    assert phrase not in text and text[:10] == bench.text(plain)[:10]
    prompt = "y" + text[:20]
    after = bench.submit(prompt, max_tokens=1, sampling=sampling)
    bench.run()
    assert bench.text(after) == text[20] or phrase.startswith(bench.text(after))


def test_constraint_and_phrases_hold_together(bench: Bench) -> None:
    ids = [
        bench.submit(
            max_tokens=80,
            constraint=Constraint("regex", "[a-e]{30}"),
            banned=("ab", "BC", "ccc", "dea"),
            sampling=SamplingParams(seed=seed),
        )
        for seed in range(30)
    ]
    bench.run()
    for request_id in ids:
        text = bench.text(request_id)
        assert len(text) == 30 and set(text) <= set("abcde")
        assert not any(phrase in text for phrase in ("ab", "bc", "ccc", "dea"))


def test_cache_that_cannot_be_cut_is_read_again(bench: Bench) -> None:
    bench.runner.can_resume = lambda sequence_id, length, cached: length == cached
    first = bench.submit("z", max_tokens=20)
    bench.run()
    phrase = bench.text(first)[5:9]
    request_id = bench.submit("z", max_tokens=20, banned=(phrase,))
    bench.run()
    prompt = bench.runner.tokenizer.encode("z", add_special=True, parse_special=True)
    assert bench.text(request_id) == greedy_without(bench.runner, prompt, [phrase], 20)


def test_model_that_keeps_a_state_refuses_phrases(bench: Bench) -> None:
    bench.runner.has_state = True
    request_id = bench.submit(banned=("shivers",))
    bench.run()
    assert bench.failed(request_id).error.field == "banned_strings"


def test_text_that_is_open_again_after_a_retreat_was_not_shown() -> None:
    reply = ReplyText((), automaton(("dea", "cc")))
    shown = "".join(reply.push(letter.encode()).text for letter in "cdea")
    assert shown == "" and reply.num_to_take_back == 3
    assert reply.push(b"c").text == "" and reply.num_to_take_back == 2
    assert reply.push(b"x").text == "x"


def test_characters_of_many_bytes_are_taken_back_whole() -> None:
    reply = ReplyText((), automaton(("🐉!",)))
    shown = ""
    for byte in "a 🐉!".encode():
        shown += reply.push(bytes([byte])).text
    assert shown == "a " and reply.num_to_take_back == 5
    for byte in "🐉?".encode():
        shown += reply.push(bytes([byte])).text
    assert shown == "a 🐉?"


def test_token_with_text_before_the_phrase_waits_as_a_whole() -> None:
    reply = ReplyText((), automaton(("bad wolf",)))
    assert reply.push(b"oh b").text == ""
    assert reply.push(b"ad").text == ""
    assert reply.push(b" wolf").text == "" and reply.num_to_take_back == 3
    assert reply.push(b"oh my").text == "oh my"


def test_tokens_that_hold_a_short_phrase_are_known() -> None:
    vocabulary = Vocabulary(ByteTokenizer(), NUM_VOCAB, ())
    assert vocabulary.tokens_with(("A",)) == {ord("a"), ord("A")}
    assert vocabulary.tokens_with(("<",)) == {ord("<")}


def test_short_phrase_never_needs_to_be_taken_back(bench: Bench) -> None:
    request_id = bench.submit(max_tokens=40, banned=("e", "E"))
    bench.run()
    assert "e" not in bench.text(request_id)
    assert bench.runner.num_evaluated <= len("hello") + 1 + 40
