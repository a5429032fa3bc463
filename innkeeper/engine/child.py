"""The engine process: frames in on stdin, frames out on stdout, everything else on stderr.

Three threads: this one owns the model and runs the loop; a reader takes frames and answers pings;
a tokenizer counts tokens and prepares prompts, so that neither waits for a step.
"""

import gc
import importlib
import os
import queue
import re
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from innkeeper.core import EngineConfig
from innkeeper.core.frames import (
    Cancel,
    ChangeSlot,
    Detokenize,
    Embed,
    ErrorInfo,
    Failed,
    Load,
    Loaded,
    LoadFailed,
    Ping,
    Pong,
    Probe,
    Progress,
    Submit,
    Text,
    ToEngine,
    Tokenize,
    Tokens,
    decode_to_engine,
    encode,
    read_body,
)
from innkeeper.engine.disk_cache import DiskCache
from innkeeper.engine.embedding import EmbeddingEngine
from innkeeper.engine.loop import CLOSE_SECONDS, Engine
from innkeeper.engine.runner import Embedder, Runner
from innkeeper.engine.tiers import Tiers
from innkeeper.errors import EngineError, EngineLoadError, InnkeeperError, InvalidRequestError

AnyEngine = Engine | EmbeddingEngine

_STEP_SECONDS = 2.0
"""A step that takes longer than this when the end comes is not waited for."""
_BACKEND_NAME = re.compile(r"[a-z][a-z0-9_]*")


class FrameWriter:
    """Writes frames whole, from any thread."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def write(self, frames: Sequence[msgspec.Struct]) -> None:
        data = b"".join(encode(frame) for frame in frames)
        with self._lock:
            self._stream.write(data)
            self._stream.flush()


def take_stdout() -> BinaryIO:
    """The real stdout, for frames alone; whoever prints from now on prints to stderr."""
    frames_fd = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(frames_fd, "wb")


def main() -> None:
    """Runs one engine until stdin ends."""
    writer = FrameWriter(take_stdout())
    stdin = os.fdopen(os.dup(0), "rb")
    body = read_body(stdin)
    if body is None:
        return
    first = decode_to_engine(body)
    if not isinstance(first, Load):
        writer.write([LoadFailed(ErrorInfo.of(EngineError("the first frame was not Load")))])
        return
    inbound: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()
    watch = _Reader(stdin, inbound, writer)
    watch.start()
    try:
        runner = _load(first.config, writer)
    except InnkeeperError as error:
        writer.write([LoadFailed(ErrorInfo.of(error))])
        return
    engine = _engine(runner, first.config, writer)
    watch.engine = engine
    _Preparer(engine, inbound, writer).start()
    writer.write([Loaded(runner.facts)])
    gc.freeze()
    engine.run()
    sys.stderr.flush()
    os._exit(0)


def _engine(runner: Runner | Embedder, config: EngineConfig, writer: FrameWriter) -> AnyEngine:
    if runner.facts.pooling:
        return EmbeddingEngine(cast(Embedder, runner), writer.write)
    return Engine(
        cast(Runner, runner),
        writer.write,
        max_slice_seconds=config.max_slice_seconds,
        kv_reuse=config.kv_reuse,
        idle_refresh=config.idle_refresh,
        tiers=_make_tiers(config, cast(Runner, runner)),
        sessions_folder=Path(config.cache_folder, "sessions") if config.cache_folder else None,
    )


def _load(config: EngineConfig, writer: FrameWriter) -> Runner | Embedder:
    if not _BACKEND_NAME.fullmatch(config.backend):
        raise EngineLoadError(f"{config.backend!r} is not the name of a backend")
    last = -1.0

    def progress(fraction: float) -> None:
        nonlocal last
        if fraction - last >= 0.01 or fraction >= 1:
            last = fraction
            writer.write([Progress(min(1.0, fraction))])

    try:
        backend = importlib.import_module(f"innkeeper.backends.{config.backend}")
    except ImportError as error:
        raise EngineLoadError(
            f"the backend {config.backend!r} cannot be used: {error}",
            hint="run ./start again to complete the installation",
        ) from error
    runner: Runner | Embedder = backend.load(config, progress)
    return runner


def _make_tiers(config: EngineConfig, runner: Runner) -> Tiers | None:
    if not runner.state_key:
        return None
    disk = None
    if config.cache_folder and config.disk_cache_bytes:
        disk = DiskCache(Path(config.cache_folder), config.disk_cache_bytes, runner.state_key)
    return Tiers(runner, config.ram_cache_bytes, disk)


class _Reader(threading.Thread):
    """Takes frames from stdin. The end of stdin ends the process: the gateway is gone. What the
    loop still has to write is waited for, a loop that does not end its step is not."""

    def __init__(
        self, stdin: BinaryIO, inbound: "queue.SimpleQueue[ToEngine]", writer: FrameWriter
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self.engine: AnyEngine | None = None
        self._stdin = stdin
        self._inbound = inbound
        self._writer = writer

    def run(self) -> None:
        while (body := read_body(self._stdin)) is not None:
            frame = decode_to_engine(body)
            if isinstance(frame, Ping):
                if self.engine is not None:
                    self._writer.write([Pong(frame.id, self.engine.stats())])
            else:
                self._inbound.put(frame)
                if isinstance(frame, Cancel) and self.engine is not None:
                    self.engine.inbox.put(frame)
        if isinstance(self.engine, Engine):
            self.engine.end()
            if self.engine.is_closing.wait(_STEP_SECONDS):
                time.sleep(CLOSE_SECONDS)
        os._exit(0)


class _Preparer(threading.Thread):
    """Answers token questions and turns ``Submit`` into ``Prepared``.

    It reads a whole burst of frames before it works, so that a ``Cancel`` behind a long prompt is
    seen before that prompt is handed to the loop.
    """

    def __init__(
        self, engine: AnyEngine, inbound: "queue.SimpleQueue[ToEngine]", writer: FrameWriter
    ) -> None:
        super().__init__(name="tokenizer", daemon=True)
        self._engine = engine
        self._inbound = inbound
        self._writer = writer
        self._tokenizer = engine.runner.tokenizer

    def run(self) -> None:
        while True:
            burst = [self._inbound.get()]
            while not self._inbound.empty():
                burst.append(self._inbound.get())
            for frame in burst:
                self._handle(frame)

    def _handle(self, frame: ToEngine) -> None:
        if isinstance(frame, Cancel):
            # The loop has seen this one already, maybe before the request: tell it again, now
            # that every request before it is there.
            self._engine.inbox.put(frame)
            return
        if isinstance(frame, Load | Ping):
            return
        try:
            self._answer(frame)
        except InnkeeperError as error:
            self._writer.write([Failed(frame.id, ErrorInfo.of(error))])
        except Exception:  # noqa: BLE001 - the job loop: one bad frame must not end the thread
            traceback.print_exc(file=sys.stderr)
            failure = EngineError("the tokenizer failed; the engine's log says why")
            self._writer.write([Failed(frame.id, ErrorInfo.of(failure))])

    def _answer(self, frame: Submit | Probe | Embed | Tokenize | Detokenize | ChangeSlot) -> None:
        if isinstance(frame, Tokenize):
            tokens = self._tokenizer.encode(
                frame.text, add_special=frame.add_special, parse_special=frame.parse_special
            )
            self._writer.write([Tokens(frame.id, tuple(tokens))])
        elif isinstance(frame, Detokenize):
            self._writer.write([Text(frame.id, self._decode(frame.tokens))])
        elif isinstance(frame, ChangeSlot):
            if not isinstance(self._engine, Engine):
                raise InvalidRequestError("this model makes vectors and keeps no chats")
            self._engine.sessions.begin(frame)
        else:
            self._engine.prepare(frame)

    def _decode(self, tokens: Sequence[int]) -> str:
        num_vocab = self._engine.runner.facts.num_vocab
        bad = next((t for t in tokens if not 0 <= t < num_vocab), None)
        if bad is not None:
            raise InvalidRequestError(
                f"token id {bad} is outside the vocabulary (0 to {num_vocab - 1})", field="tokens"
            )
        return self._tokenizer.decode(tokens)
