"""What dialects share about replies: several prompts as one answer, and its totals."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from innkeeper.core import CallDelta, GenerateRequest, Timings, TokenLogprob
from innkeeper.core.frames import Delta, Finished, SeenPrompt
from innkeeper.serving import Generate

Events = AsyncGenerator[Delta | Finished, None]


class Usage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int]
    completion_tokens_details: dict[str, int]


class Totals:
    """Usage, timings and warnings over all choices of one answer."""

    def __init__(self, num_per_prompt: int) -> None:
        self._num_per_prompt = num_per_prompt
        self._finished: list[Finished] = []

    def add(self, finished: Finished) -> None:
        self._finished.append(finished)

    def warnings(self) -> list[str]:
        """Each one once, in the order in which they came."""
        return list(dict.fromkeys(text for each in self._finished for text in each.warnings))

    def debug(self) -> list[SeenPrompt] | UnsetType:
        """One per choice, where the request asked for it."""
        return [each.debug for each in self._finished if each.debug] or UNSET

    def usage(self) -> Usage:
        """OpenAI's counts. Choices of one prompt share it, so it counts once."""
        firsts = self._one_per_prompt()
        prompt = sum(_prompt_length(timings) for timings in firsts)
        cached = sum(timings.cache_n + timings.cache_approx_n for timings in firsts)
        predicted = sum(each.timings.predicted_n for each in self._finished)
        reasoning = sum(each.timings.reasoning_n for each in self._finished)
        return Usage(
            prompt,
            predicted,
            prompt + predicted,
            {"cached_tokens": cached},
            {"reasoning_tokens": reasoning},
        )

    def timings(self) -> dict[str, float]:
        """``core.Timings`` of the whole answer, and speeds in tokens per second.

        Tokens are sums (each prompt once), times are of the slowest choice: they run together.
        """
        firsts = self._one_per_prompt()
        every = [each.timings for each in self._finished]
        whole = Timings(
            prompt_n=sum(t.prompt_n for t in firsts),
            cache_n=sum(t.cache_n for t in firsts),
            cache_approx_n=sum(t.cache_approx_n for t in firsts),
            restored_n=sum(t.restored_n for t in firsts),
            prompt_ms=max((t.prompt_ms for t in firsts), default=0.0),
            predicted_n=sum(t.predicted_n for t in every),
            predicted_ms=max((t.predicted_ms for t in every), default=0.0),
            queue_ms=max((t.queue_ms for t in every), default=0.0),
            draft_n=sum(t.draft_n for t in every),
            draft_n_accepted=sum(t.draft_n_accepted for t in every),
            reasoning_n=sum(t.reasoning_n for t in every),
        )
        return {
            **msgspec.structs.asdict(whole),
            "prompt_per_second": _per_second(whole.prompt_n, whole.prompt_ms),
            "predicted_per_second": _per_second(whole.predicted_n, whole.predicted_ms),
        }

    def _one_per_prompt(self) -> list[Timings]:
        """The choice that read most of each prompt: the others shared what it read."""
        best: dict[int, Timings] = {}
        for each in self._finished:
            number = each.index // self._num_per_prompt
            if number not in best or best[number].prompt_n < each.timings.prompt_n:
                best[number] = each.timings
        return list(best.values())


class Choice:
    """One whole reply."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.pieces: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[CallDelta] = []
        self.logprobs: list[TokenLogprob] = []
        self.finished: Finished | None = None

    @property
    def text(self) -> str:
        return "".join(self.pieces)


async def collect(events: Events) -> list[Choice]:
    """All choices, by index."""
    choices: dict[int, Choice] = {}
    async with contextlib.aclosing(events):
        async for event in events:
            choice = choices.setdefault(event.index, Choice(event.index))
            if isinstance(event, Delta):
                choice.pieces.append(event.text)
                choice.reasoning.append(event.reasoning)
                choice.calls += event.calls
                choice.logprobs += event.logprobs
            else:
                choice.finished = event
    return [choices[index] for index in sorted(choices)]


def generate_all(generate: Generate, requests: Sequence[GenerateRequest]) -> Events:
    """Events of one answer to several prompts, which run together; choice ``i`` of prompt ``p``
    has the index ``p * n + i``."""
    if len(requests) == 1:
        return generate.stream(requests[0])
    return _merged(generate, requests)


async def _merged(generate: Generate, requests: Sequence[GenerateRequest]) -> Events:
    queue: asyncio.Queue[Delta | Finished | Exception | None] = asyncio.Queue()

    async def pump(request: GenerateRequest, offset: int) -> None:
        try:
            async with contextlib.aclosing(generate.stream(request)) as events:
                async for event in events:
                    index = event.index + offset
                    queue.put_nowait(msgspec.structs.replace(event, index=index))
            queue.put_nowait(None)
        except Exception as error:  # noqa: BLE001  (raised again on the other side)
            queue.put_nowait(error)

    n = requests[0].n
    tasks = [asyncio.create_task(pump(each, i * n)) for i, each in enumerate(requests)]
    try:
        num_open = len(tasks)
        while num_open:
            event = await queue.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                num_open -= 1
            else:
                yield event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def piece_text(piece: bytes) -> str:
    """A token as text; OpenAI's notation for one that is no whole character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def finish_reason(finished: Finished) -> str:
    """OpenAI has no word for a reply that somebody stopped."""
    return "stop" if finished.reason == "cancelled" else finished.reason


def debug_of(finished: Finished) -> dict[str, SeenPrompt]:
    """What an answer shows beside its warnings, where the request asked for it."""
    return {"debug": finished.debug} if finished.debug else {}


def json_bytes(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _prompt_length(timings: Timings) -> int:
    return timings.prompt_n + timings.cache_n + timings.cache_approx_n


def _per_second(count: int, milliseconds: float) -> float:
    return round(count / milliseconds * 1000, 3) if milliseconds > 0 else 0.0
