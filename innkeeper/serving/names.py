"""Which models there are by name, and which one a client means."""

import re
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from innkeeper.errors import InnkeeperError
from innkeeper.formats import gguf
from innkeeper.formats.quant_names import claimed_quant

_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")
_AROUND = ("koboldcpp/", "https://", "hf.co/", "huggingface.co/")
_PART = re.compile(r"-\d{5}-of-\d{5}$")


class ModelEntry(Struct, frozen=True):
    """A model that may be loaded by name."""

    name: str
    path: Path
    size_bytes: int
    """Of all its parts."""


def models_in(folder: Path) -> dict[str, Path]:
    """By name, the first parts of the models in ``folder``; projectors for images are no models."""
    return {
        model_name(path.relative_to(folder)): path
        for path in folder.rglob("*.gguf")
        if not _LATER_PART.search(path.stem) and not path.name.startswith("mmproj")
    }


def model_name(path: Path) -> str:
    return _PART.sub("", path.with_suffix("").as_posix())


def entry(path: Path, name: str) -> ModelEntry | None:
    """None if the file is gone or not readable."""
    try:
        paths = [path.with_name(part) for part in gguf.split_names(path.name)]
        return ModelEntry(name, path, sum(part.stat().st_size for part in paths))
    except (OSError, InnkeeperError):
        return None


def bare(name: str) -> str:
    """A name without what Ollama's, KoboldCpp's and file-minded clients put around it."""
    name = name.strip()
    for around in _AROUND:
        name = name.removeprefix(around)
    return name.removesuffix(":latest").removesuffix(".gguf")


def match(wanted: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``wanted`` means: itself, whatever its case, its last part, or the
    repository (``org/name``, ``org/name:quant``) that it alone is of."""
    known = list(names)
    if wanted in known:
        return wanted
    lower = wanted.lower()
    for reading in (str.lower, lambda name: name.lower().rpartition("/")[2]):
        found = [name for name in known if reading(name) == lower]
        if len(found) == 1:
            return found[0]
    repo, _, quant = lower.partition(":")
    found = [name for name in known if name.lower().startswith(f"{repo}/")]
    if quant:
        found = [name for name in found if _is_quant(name, quant)]
    return found[0] if len(found) == 1 and repo else None


def _is_quant(name: str, quant: str) -> bool:
    last = name.lower().rpartition("/")[2]
    return last == quant or (claimed_quant(name) or "").lower() == quant
