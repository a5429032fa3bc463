"""What a server may do wrong with one answer."""

from dataclasses import dataclass, field


@dataclass
class Fault:
    """Misbehaviour of the next answer that carries a file's bytes; several are used in turn.

    ``at``: which door it concerns: ``hub`` (the address that has the token) or ``cdn``.
    """

    at: str = "cdn"
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    """Replaces or adds headers."""
    body: bytes | None = None
    cut_after: int | None = None
    """Closes the connection after so many bytes."""
    ignore_range: bool = False
    stretch: int = 0
    """Claims (and sends) that many bytes more than there are."""
    shift: int = 0
    """Answers another range than was asked for, by so many bytes."""
    flip: bool = False
    """Changes a byte on the way."""
    stall: bool = False
    """Sends nothing until the hub stops or the client leaves."""
    location: str | None = None
    """Redirects there instead."""
