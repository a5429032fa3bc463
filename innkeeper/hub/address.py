"""How people write a repository: ``org/name``, ``org/name:Q4_K_M``, or its page's address."""

import re
from typing import NamedTuple

from innkeeper.errors import InvalidRequestError
from innkeeper.hub.listing import check_repo_id

_PAGE = re.compile(r"(?:https?://[^/\s]+/|(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(.+)", re.I)
_INSIDE = re.compile(r"/(?:tree|blob|resolve|raw)/[^/]+(?:/(.*))?$")
_SHAPE = re.compile(r"[A-Za-z0-9][\w.-]*/\w[\w.-]*(?<!\.gguf)(?::.+)?", re.ASCII)


class Address(NamedTuple):
    """A repository, and what of it: a quantization or a file's name; None = the usual."""

    repo_id: str
    wanted: str | None


def looks_remote(text: str) -> bool:
    """Whether ``text`` may be a repository: an address of a page, or like ``org/name[:quant]``."""
    return bool(_PAGE.fullmatch(text.strip()) or _SHAPE.fullmatch(text.strip()))


def parse_address(text: str) -> Address:
    """Raises: InvalidRequestError if it is no repository's name or page."""
    rest = text.strip()
    wanted = None
    if page := _PAGE.fullmatch(rest):
        rest = page[1].partition("?")[0].rstrip("/")
        if inside := _INSIDE.search(rest):
            rest, wanted = rest[: inside.start()], inside[1] or None
    repo_id, _, quant = rest.partition(":")
    if wanted and not wanted.endswith(".gguf"):
        raise InvalidRequestError(
            f"{text[:200]!r} leads to a file that is no model", hint="name the repository: org/name"
        )
    return Address(check_repo_id(repo_id), wanted or quant or None)
