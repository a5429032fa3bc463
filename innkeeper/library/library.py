"""The models on this computer: what they are, what they are called, and removing them.

Nothing is registered anywhere. Folders are read anew each time, so a file that is dropped in is
there, and one that is deleted is gone; other programs' folders are used where they are.
"""

import difflib
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from innkeeper.errors import InnkeeperError, InvalidRequestError, ModelFileError, NotFoundError
from innkeeper.formats.gguf import split_names
from innkeeper.formats.identify import identify
from innkeeper.formats.identity import Identity
from innkeeper.formats.quant_names import claimed_quant
from innkeeper.library.ollama import find_ollama
from innkeeper.library.places import Place, find_parts, find_places, snapshot

Origin = Literal["models", "folder", "hf_cache", "ollama"]
_PART = re.compile(r"-\d{5}-of-\d{5}$")
_NEW_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}(?:/[A-Za-z0-9_][\w.-]{0,99}){0,4}", re.ASCII)
_CACHE_NAME = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


class LocalModel(Struct, frozen=True, kw_only=True):
    """One model here."""

    name: str
    path: Path
    """The main file, or the folder of a safetensors set: what a loader is given."""
    size_bytes: int
    origin: Origin
    """``models``: ours to remove. The others belong to other programs."""
    identity: Identity | None = None
    problem: str | None = None
    """Why it cannot be used, if so."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name,
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "origin": self.origin,
            "problem": self.problem,
            "identity": self.identity.to_json() if self.identity else None,
        }


class Library:
    """Models of the home's ``models`` folder, of other ``folders``, and of other programs' stores.

    Reads headers only, and each one once as long as the file does not change.
    """

    def __init__(
        self,
        models: Path,
        folders: Sequence[Path] = (),
        hf_cache: Path | None = None,
        ollama: Path | None = None,
    ) -> None:
        self.models_folder = models
        self._folders = tuple(folders)
        self._hf_cache = hf_cache
        self._ollama = ollama
        self._known: dict[tuple[Path, int, float], tuple[Identity | None, str | None]] = {}

    def models(self) -> list[LocalModel]:
        """Everything that is there, by name; what cannot be used says why."""
        return [self._look(place, origin) for origin, place in self._places()]

    def newest(self) -> Path | None:
        """The GGUF of the models folder that came last; None without any."""
        places = [place for place in find_places(self.models_folder) if place.kind == "gguf"]
        return max(places, key=lambda place: place.newest_mtime).path if places else None

    def missing_folders(self) -> list[Path]:
        """Further folders that are not there now, such as those of an unplugged disk."""
        return [folder for folder in self._folders if not folder.is_dir()]

    def unfinished(self) -> list[Path]:
        """Downloads that were interrupted; pulling the same again continues them."""
        return find_parts(self.models_folder)

    def resolve(self, name: str) -> Path:
        """Where the model called ``name`` is.

        A name is what ``models`` lists, its last part if that is unique, or ``org/name:quant`` of
        what was downloaded. Raises: NotFoundError, InvalidRequestError if several are meant.
        """
        return self._find(name)[1].path

    def remove(self, name: str) -> int:
        """Deletes a model of the models folder and returns its bytes.

        Raises: NotFoundError, InvalidRequestError (not ours, or several), ModelFileError if the
        system refuses.
        """
        place = self._ours(name)
        size = place.size_bytes
        try:
            _delete(place, self._others(place), self.models_folder)
        except OSError as error:
            raise ModelFileError(
                f"{place.path} cannot be removed: {error.strerror or error}",
                hint="check who may write there, and whether it is loaded",
            ) from None
        return size

    def check_removable(self, name: str) -> None:
        """Raises: NotFoundError, InvalidRequestError, as ``remove``."""
        self._ours(name)

    def link(self, source: Path, name: str) -> Path:
        """Gives a GGUF one more name in the models folder; no byte is copied, and each of the
        names may be removed without the others. Returns the new main file.

        name: parts divided by ``/``. Raises: InvalidRequestError if it is no name, or taken;
        ModelFileError if the system refuses.
        """
        if not _NEW_NAME.fullmatch(name):
            raise InvalidRequestError(
                f"{name[:80]!r} cannot be a model's name",
                hint="use letters, digits and . _ - with / between parts",
            )
        parts = split_names(source.name)
        ends = [_PART.search(Path(part).stem) for part in parts]
        targets = [self.models_folder / f"{name}{end[0] if end else ''}.gguf" for end in ends]
        if taken := [target for target in targets if target.exists()]:
            raise InvalidRequestError(f"there is a file {taken[0].name} already", hint="remove it")
        for part, target in zip(parts, targets, strict=True):
            _link_file(source.with_name(part), target)
        return targets[0]

    def _ours(self, name: str) -> Place:
        """A model that may be removed. Raises: NotFoundError, InvalidRequestError."""
        origin, place = self._find(name)
        if origin != "models" or not _is_ours(place, self.models_folder):
            raise InvalidRequestError(
                f"{place.name} belongs to another program ({place.path})",
                hint="remove it there",
            )
        return place

    def _places(self) -> list[tuple[Origin, Place]]:
        found: dict[str, tuple[Origin, Place]] = {}
        for place in find_places(self.models_folder):
            found[place.name] = ("models", place)
        for folder in self._folders:
            for place in find_places(folder):
                found.setdefault(place.name, ("folder", place))
        for place in _cached(self._hf_cache) if self._hf_cache else ():
            found.setdefault(place.name, ("hf_cache", place))
        for place in find_ollama(self._ollama) if self._ollama else ():
            found.setdefault(place.name, ("ollama", place))
        return sorted(found.values(), key=lambda pair: pair[1].name.lower())

    def _find(self, name: str) -> tuple[Origin, Place]:
        places = self._places()
        found = _matching(name, places)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(place.name for _, place in found[:5])
            raise InvalidRequestError(
                f"{name!r} may mean several models", hint=f"say which: {names}"
            )
        near = difflib.get_close_matches(name, [place.name for _, place in places], 3, 0.4)
        raise NotFoundError(
            f"there is no model {name[:200]!r} in the library",
            hint=f"did you mean {' or '.join(near)}?"
            if near
            else "innkeeper ls shows what is there",
        )

    def _others(self, removed: Place) -> list[Place]:
        return [place for place in find_places(self.models_folder) if place.path != removed.path]

    def _look(self, place: Place, origin: Origin) -> LocalModel:
        key = (place.path, place.size_bytes, place.newest_mtime)
        if key not in self._known:
            self._known[key] = _identified(place.path)
        identity, problem = self._known[key]
        return LocalModel(
            name=place.name,
            path=place.path,
            size_bytes=place.size_bytes,
            origin=origin,
            identity=identity,
            problem=problem,
        )


def resolve(name: str, library: Library) -> Path:
    """A path as it is, otherwise where the library has that name.

    Raises: as ``Library.resolve``.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    try:
        return library.resolve(name)
    except NotFoundError as error:
        message = f"there is no file {name[:200]}, and {error.message.removeprefix('there is ')}"
        raise NotFoundError(message, hint=error.hint) from None


def _link_file(source: Path, target: Path) -> None:
    """One more name for the file itself; where its disk is another one, a link to it."""
    real = source.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(real)
        except OSError:
            target.symlink_to(real)
    except OSError as error:
        raise ModelFileError(
            f"{target.name} cannot be made: {error.strerror or error}",
            hint="check who may write into the models folder",
        ) from None


def _identified(path: Path) -> tuple[Identity | None, str | None]:
    try:
        identity = identify(path)
    except InnkeeperError as error:
        return None, str(error)
    if identity.missing_files:
        return identity, f"{len(identity.missing_files)} of its parts are missing"
    if identity.loader is None:
        reason = (
            identity.warnings[0] if identity.warnings else f"{identity.format} cannot be loaded"
        )
        return identity, reason
    return identity, None


def _matching(name: str, places: list[tuple[Origin, Place]]) -> list[tuple[Origin, Place]]:
    """By whole name; else by ``org/name[:quant]``; else by the last part of the name."""
    wanted = name.strip().removesuffix(".gguf").lower()
    whole = [pair for pair in places if pair[1].name.lower() == wanted]
    if whole or not wanted:
        return whole
    repo, _, quant = wanted.partition(":")
    inside = [pair for pair in places if pair[1].name.lower().startswith(f"{repo}/")]
    if quant:
        inside = [pair for pair in inside if _is_quant(pair[1], quant)]
    return inside or [p for p in places if p[1].name.lower().rpartition("/")[2] == wanted]


def _is_quant(place: Place, quant: str) -> bool:
    last = place.name.lower().rpartition("/")[2]
    return (claimed_quant(place.name) or "").lower() == quant or last == quant


def _cached(cache: Path) -> Iterable[Place]:
    try:
        repos = sorted(cache.iterdir())
    except OSError:
        return
    for repo in repos:
        match = _CACHE_NAME.fullmatch(repo.name)
        newest = snapshot(repo) if match else None
        if match is None or newest is None:
            continue
        repo_id = f"{match[1]}/{match[2]}"
        # a set of safetensors lies in the snapshot itself, which is a folder of its parent
        for place in find_places(newest.parent):
            inside, _, rest = place.name.partition("/")
            if inside == newest.name:
                yield msgspec.structs.replace(place, name=f"{repo_id}/{rest}" if rest else repo_id)


def _is_ours(place: Place, root: Path) -> bool:
    """Whether it lies in ``root`` itself, not in a folder that is linked there."""
    return place.path.parent.resolve().is_relative_to(root.resolve())


def _delete(place: Place, others: list[Place], root: Path) -> None:
    """Its files, and folders that are empty then; never ``root``, never another model."""
    shares = any(other.path.is_relative_to(place.path) for other in others)
    if place.kind == "folder" and not shares and not place.path.is_symlink():
        shutil.rmtree(place.path)
    elif place.kind == "folder" and place.path.is_symlink():
        place.path.unlink()
    else:
        for file in place.files:
            file.unlink()
    folder = place.path.parent
    while folder != root and folder.is_relative_to(root) and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
