"""A repository's files, grouped as a person thinks of them: one row per model."""

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from innkeeper.errors import CorruptModelError, InvalidRequestError, NotFoundError
from innkeeper.formats.gguf import split_names
from innkeeper.formats.quant_names import claimed_bits, claimed_quant
from innkeeper.hub.listing import Listing, RemoteFile

_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.\w+$)", re.IGNORECASE)
_PICKLE = re.compile(r"\.(?:bin|pt|pth|ckpt|pkl|pickle)$", re.IGNORECASE)
_NO_MODEL = re.compile(r"^(?:mmproj|imatrix)|[-_.](?:mmproj|imatrix)[-_.]", re.IGNORECASE)
_TRAINING = frozenset({"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"})
_COMPANION = re.compile(
    r"(?:.*\.json|.*\.jinja|.*\.model|.*tokenizer.*|merges\.txt|vocab\.txt|licen[cs]e.*|readme\.md)",
    re.IGNORECASE,
)
FAVOURITES = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "IQ4_XS", "Q4_0", "Q6_K", "Q8_0")
"""What is meant when a repository is named without a quantization, the first that it has."""


class Variant(Struct, frozen=True, kw_only=True):
    """One model of a repository: what a person would choose and download."""

    repo_id: str
    commit: str
    name: str
    """What comes after the colon in ``org/name:Q4_K_M``."""
    quant: str | None
    """What the file's name claims."""
    kind: str
    """``gguf``, ``safetensors`` or ``pickle``."""
    files: tuple[RemoteFile, ...]
    """All that it needs, the main file first."""
    missing: tuple[str, ...] = ()
    is_safe: bool = True

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def main(self) -> RemoteFile:
        return self.files[0]


def variants(listing: Listing) -> list[Variant]:
    """The models of a repository, smallest first; pickles last, and marked as unsafe.

    Vision parts, importance matrices and training leftovers are none.
    """
    found = [*_ggufs(listing), *_safetensors(listing)]
    found.sort(key=lambda variant: (variant.size_bytes, variant.name))
    return found + list(_pickles(listing))


def choose_variant(listing: Listing, wanted: str | None) -> Variant:
    """The variant called ``wanted`` (a quantization or a file), or the usual one.

    Raises: NotFoundError naming what there is; InvalidRequestError if ``wanted`` fits several;
    CorruptModelError if parts of it are missing.
    """
    offered = [variant for variant in variants(listing) if variant.is_safe]
    found = _wanted(offered, wanted, listing) if wanted else _usual(offered, listing)
    if found.missing:
        raise CorruptModelError(
            f"{listing.repo_id} lacks {len(found.missing)} parts of {found.name}: "
            + ", ".join(found.missing[:3]),
            hint="choose another, or tell its author",
        )
    return found


def _wanted(offered: list[Variant], wanted: str, listing: Listing) -> Variant:
    lower = wanted.lower()
    exact = [
        variant
        for variant in offered
        if lower in (variant.name.lower(), variant.main.name.lower(), (variant.quant or "").lower())
    ]
    if len(exact) > 1:
        exact = [variant for variant in exact if variant.name.lower() == lower] or exact
    if len(exact) == 1:
        return exact[0]
    names = _names(exact or offered)
    if exact:
        raise InvalidRequestError(
            f"{listing.repo_id} has several {wanted}", hint=f"name one: {names}"
        )
    raise NotFoundError(f"{listing.repo_id} has no {wanted[:80]!r}", hint=f"it has {names}")


def _usual(offered: list[Variant], listing: Listing) -> Variant:
    if not offered:
        unsafe = any(_PICKLE.search(file.name) for file in listing.files)
        raise NotFoundError(
            f"{listing.repo_id} has no model that can be used"
            + (", only PyTorch pickles, which can run programs" if unsafe else ""),
            hint=f"look for {listing.repo_id.split('/')[1]} as GGUF",
        )
    if len(offered) == 1:
        return offered[0]
    by_quant = {variant.quant: variant for variant in reversed(offered)}
    for quant in FAVOURITES:
        if quant in by_quant and not by_quant[quant].missing:
            return by_quant[quant]
    ggufs = [variant for variant in offered if variant.kind == "gguf"] or offered
    return min(ggufs, key=lambda variant: abs((claimed_bits(variant.quant or "") or 16) - 4))


def _names(offered: Iterable[Variant]) -> str:
    names = [variant.name for variant in offered]
    return ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")


def _ggufs(listing: Listing) -> Iterator[Variant]:
    by_name = {file.name: file for file in listing.files}
    sets: dict[str, list[str]] = {}
    for name in by_name:
        base = name.rpartition("/")[2]
        if base.lower().endswith(".gguf") and not _NO_MODEL.search(base):
            sets.setdefault(_PART.sub("", name), []).append(name)
    quants = [claimed_quant(stem.rpartition("/")[2]) or claimed_quant(stem) for stem in sets]
    for (stem, names), quant in zip(sets.items(), quants, strict=True):
        wanted = _set_names(names[0])
        there = [by_name[name] for name in wanted if name in by_name]
        is_only = quant is not None and quants.count(quant) == 1
        yield Variant(
            repo_id=listing.repo_id,
            commit=listing.commit,
            name=quant if is_only and quant else stem.removesuffix(".gguf"),
            quant=quant,
            kind="gguf",
            files=tuple(there),
            missing=tuple(name for name in wanted if name not in by_name),
        )


def _set_names(name: str) -> list[str]:
    folder, slash, base = name.rpartition("/")
    try:
        return [folder + slash + part for part in split_names(base)]
    except CorruptModelError:
        return [name]


def _safetensors(listing: Listing) -> Iterator[Variant]:
    """The set in the repository's root, with its settings and tokenizer: the order of loading."""
    root = [file for file in listing.files if "/" not in file.name]
    weights = [file for file in root if file.name.endswith(".safetensors")]
    weights = [file for file in weights if not file.name.startswith("adapter")]
    if not any(file.name == "config.json" for file in root) or not weights:
        return
    shards = [file for file in weights if _PART.search(file.name)]
    names = {file.name for file in root}
    missing = [name for name in _shard_set(shards[0].name) if name not in names] if shards else []
    single = [file for file in weights if file.name == "model.safetensors"]
    used = single or shards or weights
    companions = [file for file in root if _COMPANION.fullmatch(file.name)]
    yield Variant(
        repo_id=listing.repo_id,
        commit=listing.commit,
        name="safetensors",
        quant=claimed_quant(listing.repo_id),
        kind="safetensors",
        files=tuple(used + companions),
        missing=tuple(missing),
    )


def _shard_set(name: str) -> list[str]:
    stem, count = name[: _PART.search(name).start()], int(name[-17:-12])  # type: ignore[union-attr]
    count = min(count, 10_000)
    return [f"{stem}-{part:05d}-of-{count:05d}.safetensors" for part in range(1, count + 1)]


def _pickles(listing: Listing) -> Iterator[Variant]:
    sets: dict[str, list[RemoteFile]] = {}
    for file in listing.files:
        base = file.name.rpartition("/")[2]
        if _PICKLE.search(base) and base not in _TRAINING and not _NO_MODEL.search(base):
            sets.setdefault(_PART.sub("", file.name), []).append(file)
    for stem, files in sorted(sets.items()):
        yield Variant(
            repo_id=listing.repo_id,
            commit=listing.commit,
            name=stem,
            quant=None,
            kind="pickle",
            files=tuple(files),
            is_safe=False,
        )
