"""Replies that obey: JSON schema, regular expression, GBNF or Lark grammar, a list of choices.

llguidance turns a constraint into a mask over the vocabulary for each place of the reply. The mask
of the next place is computed on a thread of its own while the model is evaluated.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper, grammar_from
from numpy.typing import NDArray

from innkeeper.core import Constraint
from innkeeper.engine.runner import Logits
from innkeeper.engine.vocabulary import Vocabulary
from innkeeper.errors import EngineError, InvalidRequestError

_MAX_COMPILED = 32
_WHITESPACE = r"(\n {0,12}| )?"
"""Between JSON tokens: nothing, a space, or a line break with indentation. Without a bound a model
may write blanks for ever."""
_MOST_DIGITS = 20
"""In a row in JSON, where anything else may follow: a model may write digits for ever, and no
reader of JSON keeps more than 17."""
_NAMES = {
    "json_schema": "JSON schema",
    "json_object": "JSON grammar",
    "regex": "regular expression",
    "gbnf": "grammar",
    "lark": "grammar",
    "choice": "list of choices",
}


class Grammar:
    """The state of one constraint in one reply. Owned by the loop's thread."""

    def __init__(
        self,
        matcher: LLMatcher,
        vocabulary: Vocabulary,
        executor: ThreadPoolExecutor,
        *,
        ends_numbers: bool = False,
    ) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._num_vocab = vocabulary.num_vocab
        self._ends_numbers = ends_numbers
        self._num_digits = [0]
        """After each token of the reply: digits in a row at its end."""
        self._end_ids = np.asarray(vocabulary.end_ids, np.int64)
        self._executor = executor
        self._next: Future[bytes] | None = None

    def prepare(self) -> None:
        """Begins to compute the next mask, on another thread."""
        if self._next is None:
            self._next = self._executor.submit(self._matcher.compute_bitmask)

    def mask(self) -> NDArray[np.bool_]:
        """Which tokens may come next (num_vocab,); waits for ``prepare``. End tokens may come
        where the constraint is fulfilled.

        Raises: EngineError if the constraint has become too costly to follow.
        """
        self.prepare()
        bits = np.frombuffer(self._settle(), np.uint8)
        allowed = np.unpackbits(bits, count=self._num_vocab, bitorder="little").view(np.bool_)
        allowed[self._end_ids] = self._matcher.is_accepting()
        self._check()
        return allowed

    def restrict(self, logits: Logits) -> bool:
        """Bans in ``logits`` (num_vocab,) what may not come next. False if nothing may: the reply
        is complete, and ``logits`` is as it was."""
        allowed = self.mask()
        if np.count_nonzero(allowed) <= np.count_nonzero(allowed[self._end_ids]):
            return False
        if self._ends_numbers and self._num_digits[-1] >= _MOST_DIGITS:
            short = allowed & ~self._vocabulary.digit_first
            allowed = short if short.any() else allowed
        np.copyto(logits, np.float32(-np.inf), where=~allowed)
        return True

    @property
    def is_finished(self) -> bool:
        """Whether the constraint is fulfilled and allows nothing more."""
        self._settle()
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def accept(self, token_id: int) -> None:
        """Follows the reply by one token, which ``mask`` allowed."""
        self._settle()
        self._next = None
        self._matcher.consume_token(token_id)
        piece = self._vocabulary.pieces[token_id]
        num_digits = len(piece) - len(piece.rstrip(b"0123456789"))
        before = self._num_digits[-1] if num_digits == len(piece) else 0
        self._num_digits.append(before + num_digits)
        self._check()

    def rewind(self, count: int) -> None:
        """Takes the last ``count`` tokens of the reply back; it has not seen those of reasoning."""
        count = min(count, len(self._num_digits) - 1)
        self._settle()
        self._next = None
        self._matcher.rollback(count)
        del self._num_digits[len(self._num_digits) - count :]
        self._check()

    def _settle(self) -> bytes:
        """The matcher is not to be touched while it computes."""
        return self._next.result() if self._next is not None else b""

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = _first_line(self._matcher.get_error())
            raise EngineError(f"the constraint cannot be followed further: {reason}")


class GrammarCompiler:
    """Makes grammars for one model. Compiled ones are kept, so that a repeated constraint, or the
    choices of one request, cost nothing again. Safe to call from several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, constraint: Constraint) -> Grammar:
        """A grammar at its beginning.

        Raises: InvalidRequestError naming the constraint's field, if it cannot be used.
        """
        key = constraint.kind, constraint.text
        with self._lock:
            template = self._compiled.get(key)
        if template is None:
            template = self._matcher(constraint)  # no lock: the loop must not wait for this
        with self._lock:
            self._compiled[key] = template
            self._compiled.move_to_end(key)
            while len(self._compiled) > _MAX_COMPILED:
                self._compiled.popitem(last=False)
        return Grammar(
            template.deep_copy(),
            self._vocabulary,
            self._executor,
            ends_numbers=constraint.kind in ("json_schema", "json_object")
            or "%json" in constraint.text,
        )

    def _matcher(self, constraint: Constraint) -> LLMatcher:
        try:
            source = _source(constraint)
        except ValueError as error:
            raise _refused(constraint, str(error)) from error
        matcher = LLMatcher(self._tokenizer, source, log_level=0)
        if matcher.is_error():
            raise _refused(constraint, matcher.get_error())
        if not any(matcher.compute_bitmask()):
            raise _refused(constraint, "no text fulfils it")
        return matcher

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return LLTokenizer(
            TokenizerWrapper(_WholeVocabulary(self._vocabulary)),
            n_vocab=self._vocabulary.num_vocab,
            eos_token=list(self._vocabulary.end_ids) or None,
        )

    @cached_property
    def _executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, thread_name_prefix="grammar")


class _WholeVocabulary:
    """A vocabulary as llguidance reads one. Where only one text can follow, it allows only the
    first of the tokens that ``__call__`` gives, so these must spell the text exactly."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.pieces
        self.special_token_ids = sorted(vocabulary.control_ids)
        self.eos_token_id = vocabulary.end_ids[0] if vocabulary.end_ids else 0
        self._tokenizer = vocabulary.tokenizer
        self._control_ids = vocabulary.control_ids

    def __call__(self, text: bytes | str) -> Sequence[int]:
        data = text if isinstance(text, bytes) else text.encode()
        # SentencePiece puts a space in front of a text, but not behind a line break.
        for lead in (b"", b"\n"):
            tokens = self._without(lead, self._encode(lead + data))
            if self._spell(tokens) == data:
                return tokens
        return self._longest_matches(data)

    def _encode(self, data: bytes) -> list[int]:
        text = data.decode("utf-8", "replace")
        return self._tokenizer.encode(text, add_special=False, parse_special=False)

    def _without(self, lead: bytes, tokens: list[int]) -> list[int]:
        """The tokens behind ``lead`` (and a space that was put before it)."""
        count = 0
        while lead and count < len(tokens) and not self._spell(tokens[:count]).endswith(lead):
            count += 1
        return tokens[count:]

    def _spell(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self.tokens[token_id] for token_id in tokens)

    def _longest_matches(self, data: bytes) -> list[int]:
        found, start = [], 0
        while start < len(data):
            end = min(len(data), start + self._longest)
            while end > start and data[start:end] not in self._ids:
                end -= 1
            if end == start:
                break  # no token begins with this byte
            found.append(self._ids[data[start:end]])
            start = end
        return found

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {
            piece: token_id
            for token_id, piece in enumerate(self.tokens)
            if piece and token_id not in self._control_ids
        }

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._ids), default=1)


def _source(constraint: Constraint) -> str:
    """llguidance's form of a constraint. Raises: ValueError."""
    match constraint.kind:
        case "json_object":
            return _json_grammar({"type": "object"})
        case "json_schema":
            schema = json.loads(constraint.text)
            if not isinstance(schema, dict | bool):
                raise ValueError("it is not an object")
            return _json_grammar(schema if isinstance(schema, dict) else _any_or_none(schema))
        case "choice":
            return LLMatcher.grammar_from_lark(_choice(json.loads(constraint.text)))
        case "regex" | "gbnf" | "lark":
            return grammar_from(constraint.kind, constraint.text)


def _json_grammar(schema: dict[str, object]) -> str:
    return LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": _WHITESPACE})


def _any_or_none(allows: bool) -> dict[str, object]:
    if not allows:
        raise ValueError("it allows nothing")
    return {}


def _choice(texts: object) -> str:
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise ValueError("it is not a list of texts")
    return "start: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _refused(constraint: Constraint, reason: str) -> InvalidRequestError:
    name = _NAMES[constraint.kind]
    return InvalidRequestError(
        f"the {name} cannot be used: {_first_line(reason)}", field=constraint.field
    )


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:300]
