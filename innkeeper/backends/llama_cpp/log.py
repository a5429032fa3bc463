"""llama.cpp's log: on to stderr (the engine's log file), with the last errors kept as causes."""

import ctypes
import re
import sys
from collections import deque

import llama_cpp.llama_cpp as lib

_LEVEL_DEBUG, _LEVEL_WARN, _LEVEL_ERROR, _LEVEL_CONTINUED = 1, 3, 4, 5
_PREFIX = re.compile(r"^\w+:\s+")

errors: deque[str] = deque(maxlen=20)
"""The last lines at error level, oldest first, without the C function's name."""
warnings: deque[str] = deque(maxlen=50)
"""The same at warning level."""


def _on_line(level: int, text: bytes, user_data: object) -> None:
    if level == _LEVEL_DEBUG or level == _LEVEL_CONTINUED:
        return
    line = text.decode("utf-8", "replace")
    if level >= _LEVEL_ERROR and line.strip():
        errors.append(_PREFIX.sub("", line.strip()))
    elif level == _LEVEL_WARN:
        warnings.append(_PREFIX.sub("", line.strip()))
    sys.stderr.write(line)
    if level >= _LEVEL_WARN:
        sys.stderr.flush()


_callback = lib.llama_log_callback(_on_line)  # llama.cpp keeps the pointer: it must live on


def start() -> None:
    """Routes the log here, from now on."""
    lib.llama_log_set(_callback, ctypes.c_void_p(0))


def cause(default: str) -> str:
    """The first error of the last failure, in llama.cpp's words, or ``default``."""
    return errors[0] if errors else default


def warning_with(text: str) -> str | None:
    """The newest warning that has ``text`` in it."""
    return next((line for line in reversed(warnings) if text in line), None)
