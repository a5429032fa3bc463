"""The process that renders templates; ``main`` is all it runs.

A sandboxed template can still loop for ever or build a string without end. Here that ends this
process and nothing else: the kernel bounds its memory, and a timer of processor seconds kills it,
even in the middle of a C function and even if the gateway is already gone.
"""

import contextlib
import os
import signal
import sys
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from innkeeper.core import Message
from innkeeper.core.frames import ErrorInfo, encode, read_body
from innkeeper.errors import InnkeeperError
from innkeeper.prompt.template import ChatTemplate


class Open(Struct, frozen=True, tag=True):
    """The first message: what to render from now on. Answered by ``Rendered`` (empty)."""

    template: str
    bos_text: str
    eos_text: str
    cpu_seconds: float
    memory_bytes: int


class Render(Struct, frozen=True, tag=True):
    """Answered by ``Rendered``, or by the end of the process."""

    messages: tuple[Message, ...]
    continue_last: bool = False
    variables: dict[str, Any] = {}


class Rendered(Struct, frozen=True, tag=True):
    text: str = ""
    error: ErrorInfo | None = None


_requests: msgspec.msgpack.Decoder[Open | Render] = msgspec.msgpack.Decoder(Open | Render)


class _Timer:
    """Kills this process after so many processor seconds in its ``with`` block."""

    def __init__(self) -> None:
        self.seconds = 1.0

    def __enter__(self) -> None:
        self._set(self.seconds)

    def __exit__(self, *_: object) -> None:
        self._set(0.0)

    def _set(self, seconds: float) -> None:
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_PROF, seconds)


def _bound_memory(num_bytes: int) -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Answers requests until ``source`` ends."""
    timer = _Timer()
    template: ChatTemplate | None = None
    while (body := read_body(source)) is not None:
        request = _requests.decode(body)
        if isinstance(request, Open):
            timer.seconds = request.cpu_seconds
            _bound_memory(request.memory_bytes)
        try:
            with timer:
                if isinstance(request, Open):
                    template = ChatTemplate(
                        request.template, bos_text=request.bos_text, eos_text=request.eos_text
                    )
                    answer = Rendered()
                else:
                    assert template is not None
                    text = template.render(
                        request.messages,
                        continue_last=request.continue_last,
                        variables=request.variables,
                    )
                    answer = Rendered(text.encode("utf-8", "replace").decode())
        except InnkeeperError as error:
            answer = Rendered(error=ErrorInfo.of(error))
        target.write(encode(answer))
        target.flush()


def main() -> None:
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but ``serve`` writes to the pipe
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        serve(sys.stdin.buffer, target)
