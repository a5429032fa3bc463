"""What a repository has: its files with sizes and checksums, from one request."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from innkeeper.errors import InvalidRequestError
from innkeeper.hub.client import Hub
from innkeeper.hub.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

MAX_FILES = 20_000
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
_FORBIDDEN = frozenset('<>:"|?*\\') | {chr(code) for code in range(32)}


class RemoteFile(Struct, frozen=True):
    """One file of a repository."""

    name: str
    """Relative, with ``/``; safe to write below a folder on every system."""
    size_bytes: int
    sha256: str | None
    """Of large files."""
    blob_id: str | None
    """Git's SHA-1 of small ones."""


class Listing(Struct, frozen=True):
    """A repository at one commit. Names that could escape a folder are left out."""

    repo_id: str
    commit: str
    files: tuple[RemoteFile, ...]
    is_gated: bool = False
    licence: str | None = None

    @property
    def sizes(self) -> Mapping[str, int]:
        return {file.name: file.size_bytes for file in self.files}


class FoundRepo(Struct, frozen=True):
    """One result of a search."""

    repo_id: str
    num_downloads: int
    num_likes: int
    tags: tuple[str, ...]
    is_gated: bool


def check_repo_id(repo_id: str) -> str:
    """``repo_id`` itself. Raises: InvalidRequestError if it is none."""
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or repo_id.endswith((".", ".git")):
        raise InvalidRequestError(
            f"{repo_id[:200]!r} is not the name of a repository", hint="write it like org/name"
        )
    return repo_id


def list_repo(hub: Hub, repo_id: str, revision: str | None = None) -> Listing:
    """What ``repo_id`` has now, or at ``revision``.

    Raises: InvalidRequestError, NotFoundError, HubError.
    """
    check_repo_id(repo_id)
    if revision is not None and not re.fullmatch(r"[\w.-]{1,100}", revision, re.ASCII):
        raise InvalidRequestError(f"{revision[:100]!r} is not a revision")
    path = f"/api/models/{repo_id}" + (f"/revision/{revision}" if revision else "")
    data = hub.get_json(path, {"blobs": "true"}, repo_id)
    try:
        return _listing(_info(data), repo_id)
    except (TypeError, KeyError, ValueError, AttributeError):
        raise HubError(
            f"{hub.endpoint} described {repo_id} in a way that makes no sense",
            hint="check the address in HF_ENDPOINT",
        ) from None


def search(
    hub: Hub,
    words: str = "",
    *,
    author: str | None = None,
    tag: str | None = None,
    limit: int = 20,
) -> list[FoundRepo]:
    """Models whose names have ``words``, the most downloaded first. Raises: HubError."""
    params: dict[str, str | int | list[str]] = {"sort": "downloads", "limit": limit}
    params |= {"search": words} if words else {}
    params |= {"author": author} if author else {}
    params |= {"filter": tag} if tag else {}
    data = hub.get_json("/api/models", params)
    try:
        return [_found(_info(entry)) for entry in data[:limit]]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise HubError(f"{hub.endpoint} answered a search with something else") from None


def is_safe_name(name: str) -> bool:
    """Whether ``name`` stays below any folder it is joined to, on every system."""
    parts = name.split("/")
    return (
        0 < len(name) < 500
        and not _FORBIDDEN & set(name)
        and not PurePosixPath(name).is_absolute()
        and all(part.strip(". ") and part[-1] not in ". " for part in parts)
        and not any(_RESERVED.fullmatch(part) for part in parts)
    )


def _info(data: Any) -> "ModelInfo":
    # takes a quarter of a second, and a model on this computer is started without
    from huggingface_hub import ModelInfo

    found: ModelInfo = ModelInfo(**data)  # type: ignore[no-untyped-call]
    return found


def _listing(info: "ModelInfo", repo_id: str) -> Listing:
    if not info.sha or not _COMMIT.fullmatch(info.sha):
        raise ValueError("no commit")
    siblings = info.siblings or []
    files = [_file(sibling) for sibling in siblings[:MAX_FILES] if is_safe_name(sibling.rfilename)]
    licence = info.card_data.get("license") if info.card_data else None
    return Listing(
        repo_id,
        info.sha,
        tuple(sorted(files, key=lambda file: file.name)),
        is_gated=bool(info.gated),
        licence=licence if isinstance(licence, str) else None,
    )


def _file(sibling: Any) -> RemoteFile:
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    size = sibling.lfs.size if sibling.lfs else sibling.size
    if not isinstance(size, int) or not 0 <= size < 1 << 50:
        raise ValueError("no size")
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise ValueError("no checksum")
    blob_id = sibling.blob_id
    is_sha1 = isinstance(blob_id, str) and _COMMIT.fullmatch(blob_id)
    return RemoteFile(sibling.rfilename, size, sha256, blob_id if is_sha1 and not sha256 else None)


def _found(info: "ModelInfo") -> FoundRepo:
    return FoundRepo(
        check_repo_id(info.id),
        info.downloads or 0,
        info.likes or 0,
        tuple(info.tags or ()),
        bool(info.gated),
    )
