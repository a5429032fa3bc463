"""Where models lie in a folder. Only names and sizes are looked at, no file is opened."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from innkeeper.errors import CorruptModelError
from innkeeper.formats.gguf import split_names

MAX_DEPTH = 6
MAX_ENTRIES = 100_000
"""Names looked at in one folder; nobody has so many models, but somebody names ``/``."""

PlaceKind = Literal["gguf", "folder"]
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
_WEIGHTS = re.compile(r"(?:model.*\.safetensors|.*\.safetensors|pytorch_model.*\.bin)")
_NO_MODEL = re.compile(r"^(?:mmproj|imatrix)|[-_.](?:mmproj|imatrix)[-_.]", re.IGNORECASE)


class Place(Struct, frozen=True):
    """A model's place: its main file, or the folder of a safetensors set."""

    name: str
    """Relative to what was searched, without the ending."""
    path: Path
    kind: PlaceKind
    files: tuple[Path, ...]
    """All of its parts that are there."""

    @property
    def size_bytes(self) -> int:
        return sum(_size(path) for path in self.files)

    @property
    def newest_mtime(self) -> float:
        return max((_mtime(path) for path in self.files), default=0.0)


def find_places(root: Path) -> list[Place]:
    """The models below ``root``, by name. A folder that cannot be read has none."""
    found: dict[str, Place] = {}
    for folder, names in _folders(root):
        for place in _in_folder(root, folder, names):
            found.setdefault(place.name, place)
    return sorted(found.values(), key=lambda place: place.name.lower())


def find_parts(root: Path) -> list[Path]:
    """Unfinished downloads below ``root``."""
    return [folder / name for folder, names in _folders(root) for name in names if _is_part(name)]


def snapshot(folder: Path) -> Path | None:
    """The newest snapshot of a repository in Hugging Face's cache."""
    try:
        found = [entry for entry in (folder / "snapshots").iterdir() if entry.is_dir()]
    except OSError:
        return None
    return max(found, key=_mtime, default=None)


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Folders with the names of the files in them; links are followed, hidden ones are not."""
    num_entries, depth_of_root = 0, len(root.parts)
    seen: set[str] = set()
    for here, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        num_entries += len(names) + len(folders)
        depth = len(Path(here).parts) - depth_of_root
        if real in seen or depth >= MAX_DEPTH or num_entries > MAX_ENTRIES:
            folders[:] = []
        if real in seen:
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(here), sorted(names)


def _in_folder(root: Path, folder: Path, names: list[str]) -> Iterator[Place]:
    for name in names:
        stem, extension = os.path.splitext(name)
        if extension.lower() != ".gguf" or _NO_MODEL.search(name) or _LATER_PART.search(stem):
            continue
        relative = (folder / _PART.sub("", stem)).relative_to(root).as_posix()
        yield Place(relative, folder / name, "gguf", _parts(folder, name, set(names)))
    weights = [name for name in names if _WEIGHTS.fullmatch(name)]
    if "config.json" in names and weights and folder != root:
        safe = [name for name in weights if name.endswith(".safetensors")]
        files = tuple(folder / name for name in safe or weights)
        yield Place(folder.relative_to(root).as_posix(), folder, "folder", files)


def _parts(folder: Path, name: str, names: set[str]) -> tuple[Path, ...]:
    try:
        return tuple(folder / part for part in split_names(name) if part in names)
    except CorruptModelError:
        return (folder / name,)


def _is_part(name: str) -> bool:
    return name.endswith(".part")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
