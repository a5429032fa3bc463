"""Who may talk to this server."""

from msgspec import Struct

from innkeeper.units import MIB


class Access(Struct, frozen=True, kw_only=True):
    """Rules of the door. The defaults are for a server bound to loopback without a key."""

    api_key: str | None = None
    """Asked of every route but ``/health``; None = no key needed."""
    hosts: frozenset[str] = frozenset()
    """Names beyond loopback that the Host header may hold (without port, lower case)."""
    any_address: bool = False
    """Any IP address will do as Host: for a bind beyond loopback. A rebinding web page always
    comes with a name, so this lets none in."""
    origins: frozenset[str] = frozenset()
    """Web origins beside the server's own that may call it, such as ``http://127.0.0.1:7860``."""
    max_body_bytes: int = 16 * MIB
