"""Chat templates, rendered in a child process that cannot hang or eat the gateway."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil
from msgspec import Struct

import innkeeper
from innkeeper.core import Message
from innkeeper.core.frames import LENGTH_BYTES, body_length, encode
from innkeeper.errors import EngineError, InvalidRequestError
from innkeeper.prompt.roles import regrouped
from innkeeper.prompt.template import CHATML, TemplateRaisedError
from innkeeper.prompt.worker import Open, Render, Rendered
from innkeeper.units import MIB

_COMMAND = (sys.executable, "-P", "-c", "from innkeeper.prompt.worker import main; main()")
_POLL_SECONDS = 0.05

NO_TEMPLATE_WARNING = "the model has no chat template of its own: ChatML was used"
REGROUPED_WARNING = (
    "the model's chat template takes only strict turns: neighbouring messages were joined"
)


class RenderLimits(Struct, frozen=True, kw_only=True):
    """What one template may use."""

    cpu_seconds: float = 0.5
    """Processor time of one render, and of compiling. POSIX only; Windows has the next limit."""
    wall_seconds: float = 5.0
    memory_bytes: int = 256 * MIB
    """Of the whole child process, Python included (about 40 MiB)."""


class RenderedPrompt(Struct, frozen=True):
    text: str
    warnings: tuple[str, ...] = ()


class Renderer:
    """One template and the process that renders it, started at the first use.

    template: None stands for ChatML, with a warning in each result.
    """

    def __init__(
        self,
        template: str | None,
        *,
        bos_text: str = "",
        eos_text: str = "",
        limits: RenderLimits | None = None,
    ) -> None:
        self._limits = limits or RenderLimits()
        self._warnings = (NO_TEMPLATE_WARNING,) if template is None else ()
        self._open = Open(
            CHATML if template is None else template,
            bos_text,
            eos_text,
            self._limits.cpu_seconds,
            self._limits.memory_bytes,
        )
        self._process: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """Starts the process and compiles the template.

        Raises: UnsupportedModelError if the template cannot be used.
        """
        async with self._lock:
            await self._ready()

    async def render(
        self,
        messages: Sequence[Message],
        *,
        continue_last: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> RenderedPrompt:
        """The prompt for ``messages``; see ``ChatTemplate.render``.

        Messages that the template refuses are regrouped into strict turns, with a warning, if
        that helps. Raises: UnsupportedModelError; InvalidRequestError.
        """
        request = Render(tuple(messages), continue_last, dict(variables or {}))
        async with self._lock:
            try:
                return RenderedPrompt(await self._render(request), self._warnings)
            except TemplateRaisedError:
                for turns in regrouped(messages):
                    with contextlib.suppress(TemplateRaisedError):
                        text = await self._render(msgspec.structs.replace(request, messages=turns))
                        return RenderedPrompt(text, (*self._warnings, REGROUPED_WARNING))
                raise

    async def close(self) -> None:
        """Ends the process. The renderer may be used again."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)

    async def _render(self, request: Render) -> str:
        return await self._ask(await self._ready(), request)

    async def _ready(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = process = await _spawn()
        try:
            await self._ask(process, self._open)
        except BaseException:
            await self.close()
            raise
        return process

    async def _ask(self, process: asyncio.subprocess.Process, request: Struct) -> str:
        assert process.stdin is not None
        reply = asyncio.ensure_future(_read_reply(process))
        rendered = None
        try:
            process.stdin.write(encode(request))
            rendered = await self._watch(process, reply)
        finally:
            if rendered is None:
                # An answer still to come would be taken for the next one.
                reply.cancel()
                self._process = None
                await _end(process)
        if rendered is None:
            raise InvalidRequestError(
                "the model's chat template took too long or too much memory", field="messages"
            )
        if rendered.error is not None:
            raise rendered.error.to_error()
        return rendered.text

    async def _watch(
        self, process: asyncio.subprocess.Process, reply: "asyncio.Future[Rendered | None]"
    ) -> Rendered | None:
        """The reply, if the process keeps to its limits."""
        deadline = time.monotonic() + self._limits.wall_seconds
        while not (await asyncio.wait([reply], timeout=_POLL_SECONDS))[0]:
            # The kernel's own limit is not enforced everywhere (macOS, Windows).
            with contextlib.suppress(psutil.Error):
                if psutil.Process(process.pid).memory_info().rss > self._limits.memory_bytes:
                    return None
            if time.monotonic() > deadline:
                return None
        return reply.result()


async def _spawn() -> asyncio.subprocess.Process:
    own = str(Path(innkeeper.__file__).resolve().parent.parent)
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TZ") if name in os.environ}
    return await asyncio.create_subprocess_exec(
        *_COMMAND,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**kept, "PYTHONPATH": own, "PYTHONUTF8": "1"},
        start_new_session=True,
    )


async def _read_reply(process: asyncio.subprocess.Process) -> Rendered | None:
    assert process.stdout is not None
    try:
        header = await process.stdout.readexactly(LENGTH_BYTES)
        body = await process.stdout.readexactly(body_length(header))
        return msgspec.msgpack.decode(body, type=Rendered)
    except (asyncio.IncompleteReadError, ConnectionError, EngineError, msgspec.MsgspecError):
        return None


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
