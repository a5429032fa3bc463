"""What the local hub offers: repositories and their files."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class HubFile:
    """One file: its bytes, or a file on disk. ``is_lfs``: large ones, which the CDN sends."""

    content: bytes | Path
    is_lfs: bool = True
    claimed_sha256: str | None = None
    """What the listing says, if it lies."""
    claimed_size: int | None = None
    _sha256: str = ""

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self, start: int, num_bytes: int) -> bytes:
        if isinstance(self.content, bytes):
            return self.content[start : start + num_bytes]
        with self.content.open("rb") as file:
            file.seek(start)
            return file.read(num_bytes)

    @property
    def sha256(self) -> str:
        if self.claimed_sha256:
            return self.claimed_sha256
        if not self._sha256:
            if isinstance(self.content, bytes):
                self._sha256 = hashlib.sha256(self.content).hexdigest()
            else:
                with self.content.open("rb") as file:
                    self._sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return self._sha256

    @property
    def blob_id(self) -> str:
        """What git calls it: of a large file, the pointer to it."""
        data = b"pointer to " + self.sha256.encode() if self.is_lfs else self.read(0, self.size)
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.blob_id

    def sibling(self, name: str) -> dict[str, Any]:
        """Its entry in the answer to ``model_info(files_metadata=True)``."""
        size = self.size if self.claimed_size is None else self.claimed_size
        entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": self.blob_id}
        if self.is_lfs:
            entry["lfs"] = {"sha256": self.sha256, "size": size, "pointerSize": 135}
        return entry


@dataclass
class HubRepo:
    """A model repository. ``gated``: only tokens in ``allowed_tokens`` may read its files."""

    files: dict[str, HubFile] = field(default_factory=dict)
    gated: bool = False
    allowed_tokens: frozenset[str] = frozenset()
    downloads: int = 0
    tags: tuple[str, ...] = ("gguf", "text-generation")

    @property
    def commit(self) -> str:
        parts = sorted(f"{name} {file.etag}" for name, file in self.files.items())
        return hashlib.sha1("\n".join(parts).encode()).hexdigest()

    def info(self, repo_id: str, *, with_files: bool) -> dict[str, Any]:
        """The answer of ``/api/models/ID``."""
        found: dict[str, Any] = {
            "_id": hashlib.sha1(repo_id.encode()).hexdigest()[:24],
            "id": repo_id,
            "modelId": repo_id,
            "author": repo_id.split("/")[0],
            "sha": self.commit,
            "private": False,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "downloads": self.downloads,
            "likes": 0,
            "tags": list(self.tags),
            "lastModified": "2026-01-01T00:00:00.000Z",
            "createdAt": "2026-01-01T00:00:00.000Z",
        }
        if with_files:
            found["siblings"] = [file.sibling(name) for name, file in self.files.items()]
        return found
