"""One engine process, spoken to in frames."""

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from msgspec import Struct

from innkeeper.core import EngineConfig, EngineStats, GenerateRequest, ModelFacts, frames
from innkeeper.enginelink.process import DEFAULT_COMMAND, EngineProcess
from innkeeper.enginelink.stream import EngineStream
from innkeeper.errors import EngineCrashedError, EngineError, EngineHungError, EngineLoadError

logger = logging.getLogger(__name__)

ProgressCallback = Callable[[float, str], None]
"""Called with (fraction 0..1, stage) while the model loads."""

_Reply = (
    frames.Tokens
    | frames.Text
    | frames.Probabilities
    | frames.Vectors
    | frames.SlotChanged
    | frames.Pong
)
_R = TypeVar(
    "_R",
    frames.Tokens,
    frames.Text,
    frames.Probabilities,
    frames.Vectors,
    frames.SlotChanged,
    frames.Pong,
)
_LONG = (frames.Probe, frames.Embed)
"""Calls that are work, and are cancelled if nobody waits."""
_READ_BYTES = 1 << 18


class LinkLimits(Struct, frozen=True, kw_only=True):
    """When an engine counts as hung, and how long it gets to end."""

    ping_seconds: float = 1.0
    quiet_seconds: float = 3.0
    """No pong for this long: ``responsive`` is false."""
    hung_seconds: float = 15.0
    """No pong for this long: it is killed."""
    step_seconds: float = 60.0
    """One step that takes longer: it is killed. Steps are sized to a fraction of a second."""
    first_step_seconds: float = 600.0
    """The same before any step has ended: the first one may read all weights from a slow disk."""
    close_seconds: float = 3.0
    """Time to end by itself, then again after SIGTERM, before SIGKILL."""
    save_seconds: float = 12.0
    """The first of these, for an engine that answers: it writes its cache to disk."""


class EngineLink:
    """A loaded model in its own process. Belongs to one event loop.

    ``lost`` resolves with an ``EngineError`` when the process dies or is killed for hanging, and
    with None when ``close`` ended it. After that every call raises that error.
    """

    facts: ModelFacts

    def __init__(self, process: EngineProcess, limits: LinkLimits) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[EngineError | None] = loop.create_future()
        self.stats: EngineStats | None = None
        """What the engine last said of itself; None before its first pong."""
        self._process = process
        self._limits = limits
        self._ids = itertools.count(1)
        self._streams: dict[int, EngineStream] = {}
        self._replies: dict[int, asyncio.Future[_Reply]] = {}
        self._loaded: asyncio.Future[ModelFacts] = loop.create_future()
        self._on_progress: ProgressCallback | None = None
        self._last_pong = time.monotonic()
        self._closing = False
        self._hung: EngineHungError | None = None
        self._tasks = [loop.create_task(self._read())]

    @classmethod
    async def start(
        cls,
        config: EngineConfig,
        *,
        on_progress: ProgressCallback | None = None,
        log_path: Path | None = None,
        command: Sequence[str] = DEFAULT_COMMAND,
        limits: LinkLimits | None = None,
    ) -> "EngineLink":
        """Spawns an engine and loads ``config``'s model; ends the process if that fails.

        Raises: what the engine refused with (ModelFileError, NotEnoughMemoryError, ...), or
        EngineLoadError with the cause from its log if the process died.
        """
        process = await EngineProcess.spawn(command, log_path=log_path)
        link = cls(process, limits or LinkLimits())
        try:
            await link._load(config, on_progress)
        except BaseException:
            await link.close()
            raise
        return link

    @property
    def alive(self) -> bool:
        return not self.lost.done() and not self._closing

    @property
    def responsive(self) -> bool:
        """Alive, and has answered a ping within ``quiet_seconds``."""
        return self.alive and time.monotonic() - self._last_pong < self._limits.quiet_seconds

    @property
    def num_open(self) -> int:
        """Choices that the engine has not finished, of all requests."""
        return sum(stream.num_unfinished for stream in self._streams.values())

    @property
    def process_id(self) -> int:
        return self._process.id

    def stream(self, request: GenerateRequest) -> EngineStream:
        """Submits ``request`` at once; closing the stream cancels it.

        Raises: EngineCrashedError, EngineHungError if the process is gone already.
        """
        self._check_alive()
        request_id = next(self._ids)

        def close(stream: EngineStream) -> None:
            self._streams.pop(request_id, None)
            if stream.num_unfinished and self.alive:
                self._send(frames.Cancel(request_id))

        stream = self._streams[request_id] = EngineStream(request.n, close)
        self._send(frames.Submit(request_id, request))
        return stream

    def cancel_all(self) -> None:
        """Every running request finishes as ``cancelled`` within one step."""
        if self.alive:
            self._send(frames.Cancel(None))

    async def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True
    ) -> tuple[int, ...]:
        """Token ids of ``text``. Raises: EngineError if the process is gone."""
        frame_id = next(self._ids)
        frame = frames.Tokenize(frame_id, text, add_special, parse_special)
        return (await self._call(frame_id, frame, frames.Tokens)).tokens

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Text of ``tokens``. Raises: InvalidRequestError for ids beyond the vocabulary."""
        frame_id = next(self._ids)
        frame = frames.Detokenize(frame_id, tuple(tokens))
        return (await self._call(frame_id, frame, frames.Text)).text

    async def probe(
        self, request: GenerateRequest, *, use_samplers: bool = False, top: int = 50
    ) -> tuple[tuple[int, str, float], ...]:
        """(token id, text, probability) of the ``top`` likeliest next tokens, best first."""
        frame_id = next(self._ids)
        frame = frames.Probe(frame_id, request, use_samplers, top)
        return (await self._call(frame_id, frame, frames.Probabilities)).tokens

    async def trace(self, request: GenerateRequest, top: int) -> tuple[frames.ProbedStep, ...]:
        """The ``top`` candidates for the next token behind every sampling step."""
        frame = frames.Probe(next(self._ids), request, top=top, traces=True)
        return (await self._call(frame.id, frame, frames.Probabilities)).steps

    async def embed(
        self,
        inputs: Sequence[str | tuple[int, ...]],
        *,
        query: str | None = None,
        truncate: bool = False,
        normalize: bool = True,
    ) -> frames.Vectors:
        """A vector of each input, or its score against ``query``.

        Raises: InvalidRequestError if the model writes text, PromptTooLongError.
        """
        frame_id = next(self._ids)
        frame = frames.Embed(frame_id, tuple(inputs), query, truncate, normalize)
        return await self._call(frame_id, frame, frames.Vectors)

    async def change_slot(
        self, action: Literal["save", "restore", "erase"], slot: int, name: str = ""
    ) -> frames.SlotChanged:
        """Saves the chat in ``slot`` under ``name``, restores it, or erases the slot.

        Raises: InvalidRequestError, NotFoundError, EngineError.
        """
        frame = frames.ChangeSlot(next(self._ids), action, slot, name)
        return await self._call(frame.id, frame, frames.SlotChanged)

    async def close(self) -> None:
        """Ends the process: politely, then by SIGTERM, then by SIGKILL. Idempotent."""
        limits = self._limits
        saves = self.responsive and hasattr(self, "facts")  # nothing to save before it is loaded
        grace = limits.save_seconds if saves else limits.close_seconds
        self._closing = True
        await self._process.end(grace, limits.close_seconds)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the other side ---------------------------------------------------------------------

    async def _load(self, config: EngineConfig, on_progress: ProgressCallback | None) -> None:
        self._on_progress = on_progress
        self._send(frames.Load(config))
        self.facts = await self._loaded
        self._last_pong = time.monotonic()
        self._tasks.append(asyncio.get_running_loop().create_task(self._watch()))

    async def _call(self, frame_id: int, frame: Struct, kind: type[_R]) -> _R:
        self._check_alive()
        future: asyncio.Future[_Reply] = asyncio.get_running_loop().create_future()
        self._replies[frame_id] = future
        try:
            self._send(frame)
            reply = await future
        finally:
            self._replies.pop(frame_id, None)
            if future.cancelled() and isinstance(frame, _LONG) and self.alive:
                self._send(frames.Cancel(frame_id))
        if not isinstance(reply, kind):
            raise EngineError(f"the engine answered with {type(reply).__name__}")
        return reply

    def _send(self, frame: Struct) -> None:
        self._process.write(frames.encode(frame))

    def _check_alive(self) -> None:
        if self.lost.done() and (error := self.lost.result()) is not None:
            raise error
        if not self.alive:
            raise EngineCrashedError("the model was unloaded")

    async def _read(self) -> None:
        try:
            await self._read_frames()
        except (EngineError, ValueError) as error:
            logger.error("engine %d sent something unreadable: %s", self._process.id, error)
        self._end(await self._cause())

    async def _read_frames(self) -> None:
        buffer = bytearray()
        while data := await self._process.read(_READ_BYTES):
            buffer += data
            start = 0
            while len(buffer) - start >= frames.LENGTH_BYTES:
                body_start = start + frames.LENGTH_BYTES
                end = body_start + frames.body_length(bytes(buffer[start:body_start]))
                if len(buffer) < end:
                    break
                self._receive(frames.decode_from_engine(bytes(buffer[body_start:end])))
                start = end
            del buffer[:start]

    def _receive(self, frame: frames.FromEngine) -> None:
        match frame:
            case frames.Delta() | frames.Finished():
                if (stream := self._streams.get(frame.id)) is not None:
                    stream.put(frame)
            case frames.Failed():
                self._fail(frame.id, frame.error.to_error())
            case frames.Progress():
                if self._on_progress is not None:
                    self._on_progress(frame.fraction, frame.stage)
            case frames.Loaded():
                _set_result(self._loaded, frame.facts)
            case frames.LoadFailed():
                _set_exception(self._loaded, frame.error.to_error())
            case _:
                if isinstance(frame, frames.Pong):
                    self.stats = frame.stats
                if (future := self._replies.get(frame.id)) is not None:
                    _set_result(future, frame)

    def _fail(self, request_id: int, error: Exception) -> None:
        if (stream := self._streams.get(request_id)) is not None:
            stream.put(error)
        elif (future := self._replies.get(request_id)) is not None:
            _set_exception(future, error)

    async def _cause(self) -> EngineError | None:
        """Why the frames ended; waits for the process and for the end of its log."""
        if self._closing and self._hung is None:
            await self._process.wait()
            return None
        cause = await self._process.explain_end()
        if self._hung is not None:
            return self._hung
        if not self._loaded.done():
            return EngineLoadError(f"the engine ended while loading: {cause}")
        return EngineCrashedError(
            f"the engine process ended: {cause}", hint="it is being restarted; send it again"
        )

    def _end(self, error: EngineError | None) -> None:
        final = error or EngineCrashedError("the model was unloaded")
        _set_result(self.lost, error)
        if not self._loaded.done():
            self._loaded.set_exception(final)
            self._loaded.exception()  # read, so that an abandoned load does not log it
        for request_id in [*self._streams, *self._replies]:
            self._fail(request_id, final)

    async def _watch(self) -> None:
        """Pings until the process is gone; kills it if it hangs."""
        limits = self._limits
        while self.alive:
            ping = self._call(frame_id := next(self._ids), frames.Ping(frame_id), frames.Pong)
            since = self._last_pong
            try:
                pong = await asyncio.wait_for(ping, limits.hung_seconds)
            except TimeoutError:
                self._kill(f"it has not answered for {time.monotonic() - since:.0f} s")
                return
            except EngineError:
                return
            self._last_pong = time.monotonic()
            limit = limits.step_seconds if pong.stats.num_steps else limits.first_step_seconds
            if pong.stats.seconds_in_step > limit:
                self._kill(f"one step has taken {pong.stats.seconds_in_step:.0f} s")
                return
            done, _ = await asyncio.wait([self.lost], timeout=limits.ping_seconds)
            if done:
                return

    def _kill(self, why: str) -> None:
        self._hung = EngineHungError(
            f"the engine stopped working: {why}", hint="it is being restarted; send it again"
        )
        logger.error("killing engine %d: %s", self._process.id, why)
        self._process.kill()


_T = TypeVar("_T")


def _set_result(future: asyncio.Future[_T], value: _T) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: "asyncio.Future[_T]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class StartEngine(Protocol):
    """``EngineLink.start``, or a test's stand-in for it."""

    def __call__(
        self,
        config: EngineConfig,
        *,
        on_progress: ProgressCallback | None = None,
        log_path: Path | None = None,
    ) -> Awaitable[EngineLink]: ...
