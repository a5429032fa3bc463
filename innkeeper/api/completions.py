"""``/v1/completions``: OpenAI's text completion with Oobabooga's fields."""

import codecs
import contextlib
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from innkeeper.api import fields, requests, values
from innkeeper.api.envelope import Envelope
from innkeeper.api.replies import Choice, Events, collect, finish_reason, generate_all, piece_text
from innkeeper.core import GenerateRequest, TokenLogprob
from innkeeper.core.frames import Delta
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Generate

DEFAULT_MAX_TOKENS = 512
"""Oobabooga's, where the request names none."""

Prompt = str | tuple[int, ...]

_MAX_PROMPTS = 32
_MAX_LOGPROBS = 100
_MAX_PROMPT_CHARS = 64 * 1024 * 1024
_CHATS_OWN: dict[str, tuple[Any, ...]] = {"messages": (), "top_logprobs": ()}
_ECHO_WARNING = "echo: log probabilities of the prompt are not supported yet"


class Logprobs(Struct, frozen=True):
    """OpenAI's first shape."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class TextChoice(Struct, frozen=True):
    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Call(Struct, frozen=True, kw_only=True):
    """One parsed call."""

    requests: tuple[GenerateRequest, ...]
    stream: bool = False
    include_usage: bool = False
    echo: bool = False


def parse(body: Mapping[str, Any]) -> Call:
    """Raises: InvalidRequestError naming the field."""
    logprobs = num_logprobs(body)
    echo = values.flag("echo", body.get("echo") or False)
    request = requests.build(
        body,
        default_max_tokens=DEFAULT_MAX_TOKENS,
        logprobs=logprobs,
        warnings=[
            *([_ECHO_WARNING] if echo and logprobs is not None else []),
            *requests.ignored(body, _CHATS_OWN),
        ],
    )
    return Call(
        requests=with_prompts(request, prompts(body)),
        stream=values.flag("stream", body.get("stream") or False),
        include_usage=include_usage(body),
        echo=echo,
    )


def with_prompts(request: GenerateRequest, texts: Sequence[Prompt]) -> tuple[GenerateRequest, ...]:
    """``request`` for each prompt. Raises: InvalidRequestError if they make too many choices."""
    if len(texts) * request.n > fields.MAX_CHOICES:
        raise InvalidRequestError(
            f"{len(texts)} prompts with n = {request.n} make more than {fields.MAX_CHOICES}"
            " choices",
            field="n",
        )
    return tuple(msgspec.structs.replace(request, prompt=text) for text in texts)


def include_usage(body: Mapping[str, Any]) -> bool:
    """``stream_options.include_usage``. Raises: InvalidRequestError."""
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise values.refuse("stream_options", "an object", options)
    return values.flag("stream_options.include_usage", options.get("include_usage") or False)


async def answer(call: Call, generate: Generate) -> bytes:
    """The whole answer as JSON."""
    choices = await collect(generate_all(generate, call.requests))
    echoes = await _echoes(call, generate)
    n = call.requests[0].n
    return _envelope(call, generate).whole(
        choices, [_whole(each, call, echoes[each.index // n]) for each in choices]
    )


def stream(call: Call, generate: Generate) -> AsyncGenerator[bytes, None]:
    """The answer as server-sent events."""
    return _Stream(call, generate).pieces(generate_all(generate, call.requests))


def _envelope(call: Call, generate: Generate) -> Envelope:
    return Envelope(
        generate.models,
        model=call.requests[0].model,
        kind="text_completion",
        id_prefix="cmpl",
        num_per_prompt=call.requests[0].n,
        include_usage=call.include_usage,
    )


class _Stream:
    """Formats one streamed answer."""

    def __init__(self, call: Call, generate: Generate) -> None:
        self._call = call
        self._generate = generate
        self._envelope = _envelope(call, generate)
        self._offsets: dict[int, _Offset] = {}

    async def pieces(self, events: Events) -> AsyncGenerator[bytes, None]:
        envelope = self._envelope
        num_open = sum(request.n for request in self._call.requests)
        echoes: list[str] | None = None
        async with contextlib.aclosing(events):
            async for each in events:
                if echoes is None:
                    echoes = await _echoes(self._call, self._generate)
                    for choice in self._echo_choices(echoes):
                        yield envelope.chunk(choice)
                if isinstance(each, Delta):
                    yield envelope.chunk(self._delta(each, echoes))
                    continue
                num_open -= 1
                last = TextChoice(each.index, "", finish_reason=finish_reason(each))
                yield envelope.finish(each, last, is_last=not num_open)
        for piece in envelope.end():
            yield piece

    def _delta(self, delta: Delta, echoes: Sequence[str]) -> TextChoice:
        logprobs = None
        if delta.logprobs:
            request = self._call.requests[0]
            if (offset := self._offsets.get(delta.index)) is None:
                offset = _Offset(len(echoes[delta.index // request.n]))
                self._offsets[delta.index] = offset
            logprobs = _logprobs(delta.logprobs, request.logprobs, offset)
        return TextChoice(delta.index, delta.text, logprobs)

    def _echo_choices(self, echoes: Sequence[str]) -> list[TextChoice]:
        if not self._call.echo:
            return []
        n = self._call.requests[0].n
        return [TextChoice(p * n + i, text) for p, text in enumerate(echoes) for i in range(n)]


class _Offset:
    """Where tokens begin in a text, in characters."""

    def __init__(self, start: int) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = start

    def next(self, piece: bytes) -> int:
        """Where ``piece`` begins; moves behind it."""
        start = self._at
        self._at += len(self._decoder.decode(piece))
        return start


def _whole(choice: Choice, call: Call, echo: str) -> TextChoice:
    assert choice.finished is not None
    logprobs, wanted = None, call.requests[0].logprobs
    if wanted is not None:
        logprobs = _logprobs(choice.logprobs, wanted, _Offset(len(echo)))
    return TextChoice(choice.index, echo + choice.text, logprobs, finish_reason(choice.finished))


def _logprobs(entries: Sequence[TokenLogprob], wanted: int | None, offset: _Offset) -> Logprobs:
    return Logprobs(
        tokens=[piece_text(entry.piece) for entry in entries],
        token_logprobs=[entry.logprob for entry in entries],
        top_logprobs=[_top(entry) for entry in entries] if wanted else None,
        text_offset=[offset.next(entry.piece) for entry in entries],
    )


def _top(entry: TokenLogprob) -> dict[str, float]:
    """The alternatives and the chosen token. Of tokens that read alike the likelier counts."""
    best: dict[str, float] = {}
    for piece, logprob in [
        *((piece, logprob) for _, piece, logprob in entry.top),
        (entry.piece, entry.logprob),
    ]:
        best.setdefault(piece_text(piece), logprob)
    return best


async def _echoes(call: Call, generate: Generate) -> list[str]:
    """The prompts as text, to be put in front of the replies; empty without ``echo``."""
    if not call.echo:
        return [""] * len(call.requests)
    return [
        request.prompt
        if isinstance(request.prompt, str)
        else await generate.detokenize(request.prompt or (), model=request.model)
        for request in call.requests
    ]


def prompts(body: Mapping[str, Any]) -> list[Prompt]:
    """``prompt`` as a list. Raises: InvalidRequestError."""
    prompt = body.get("prompt")
    if prompt is None:
        raise InvalidRequestError("prompt is missing", field="prompt", hint="send some text")
    if isinstance(prompt, str) or (isinstance(prompt, list) and _is_tokens(prompt)):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise values.refuse("prompt", "a string, token ids, or a list of either", prompt)
    if len(prompt) > _MAX_PROMPTS:
        raise values.refuse("prompt", f"at most {_MAX_PROMPTS} prompts", prompt)
    return [_prompt(each) for each in prompt]


def _is_tokens(prompt: Sequence[Any]) -> bool:
    return bool(prompt) and all(type(each) is int for each in itertools.islice(prompt, 8))


def _prompt(prompt: Any) -> Prompt:
    if isinstance(prompt, list):
        return values.token_ids("prompt", prompt)
    text: str = values.text(_MAX_PROMPT_CHARS)("prompt", prompt)
    return text


def num_logprobs(body: Mapping[str, Any]) -> int | None:
    """Alternatives per token from ``logprobs``, or from ``n_probs`` where 0 means none."""
    wanted = body.get("logprobs")
    if isinstance(wanted, bool):
        wanted = 1 if wanted else None
    read = values.integer(0, _MAX_LOGPROBS)
    if wanted is not None:
        return int(read("logprobs", wanted))
    return read("n_probs", body.get("n_probs") or 0) or None
