"""Sizes and durations as people read them."""

import re

from innkeeper.errors import SettingsError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

_SUFFIXES = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}
_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?\s*$", re.IGNORECASE)


def format_bytes(num_bytes: float) -> str:
    """``1536`` -> ``1.5 KiB``; whole numbers below 1 KiB."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def parse_bytes(text: str) -> int:
    """``"8G"``, ``"512 MiB"`` or ``"1048576"`` -> bytes.

    Raises: SettingsError if the text is not a size.
    """
    match = _SIZE.match(text)
    if match is None:
        raise SettingsError(f"{text!r} is not a size", hint="write it like 512M, 8G or 1048576")
    return int(float(match[1]) * _SUFFIXES[match[2].lower()])


def format_seconds(seconds: float) -> str:
    """``0.0421`` -> ``42 ms``, ``75`` -> ``1 min 15 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
