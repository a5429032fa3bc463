"""The card inside a picture: base64 in a ``tEXt`` chunk of a PNG.

Source: PNG (ISO/IEC 15948), chunk layout; the keywords are those of the card formats.
"""

import struct

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORDS = (b"ccv3", b"chara")
"""Of the third and of the earlier formats; the newer one wins where a picture holds both."""
_HEADER = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4
_MAX_CHUNKS = 10_000


def card_text(data: bytes) -> bytes | None:
    """The card in a PNG, still in base64; None if there is none. A picture that is cut short is
    read as far as it goes."""
    found: dict[bytes, bytes] = {}
    at = len(SIGNATURE)
    for _ in range(_MAX_CHUNKS):
        if at + _HEADER.size > len(data):
            break
        length, kind = _HEADER.unpack_from(data, at)
        start = at + _HEADER.size
        if kind == b"IEND" or start + length > len(data):
            break
        if kind == b"tEXt":
            keyword, _, text = data[start : start + length].partition(b"\0")
            found.setdefault(keyword.lower(), text)
        at = start + length + _CHECKSUM_BYTES
    return next((found[keyword] for keyword in _KEYWORDS if keyword in found), None)
