"""What is this? Looks at a file, a folder or a repository and tells, from headers alone.

Nothing is executed, unpickled or unpacked; tensor data is never read.
"""

import re
from pathlib import Path

from innkeeper.errors import (
    InvalidRequestError,
    NotAModelError,
    NotFoundError,
    UnsupportedModelError,
)
from innkeeper.formats.identify_gguf import identify_gguf
from innkeeper.formats.identify_hf import identify_hf
from innkeeper.formats.identity import Identity
from innkeeper.formats.magic import GGUF_MAGIC, LEGACY_GGML, NUM_MAGIC_BYTES, describe_non_gguf
from innkeeper.formats.source import LocalSource, Source

_PICKLES = re.compile(r"\.(?:bin|pt|pth|ckpt|pkl|pickle)$", re.IGNORECASE)
_SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)", re.IGNORECASE)
_FOREIGN = {
    ".onnx": "onnx",
    ".h5": "keras",
    ".keras": "keras",
    ".msgpack": "flax",
    ".mlmodel": "coreml",
    ".mlpackage": "coreml",
    ".tflite": "tflite",
    ".nemo": "nemo",
    ".engine": "tensorrt",
    ".llamafile": "llamafile",
}
_ADVICE = "get the model as GGUF (or safetensors)"


def identify(path: Path) -> Identity:
    """Identifies what lies at ``path``, a file or a folder.

    Raises: NotFoundError; NotAModelError, CorruptModelError, UnsupportedModelError as the readers
    do; InvalidRequestError if a folder has several models in it.
    """
    if path.is_dir():
        folder = _snapshot(path)
        return identify_source(LocalSource(folder), name=path.name or str(path), path=str(path))
    if not path.exists():
        raise NotFoundError(f"there is no file or folder {path}", hint="check the path")
    source = LocalSource(path.parent, depth=1)
    return identify_source(source, name=path.name, path=str(path), chosen=path.name)


def identify_source(source: Source, *, name: str, path: str, chosen: str | None = None) -> Identity:
    """Identifies the files of ``source``: all of them as one model, or the ``chosen`` one.

    Raises: as ``identify``.
    """
    if chosen is not None:
        return _identify_file(source, chosen, path)
    if ggufs := _gguf_models(source):
        if len(ggufs) > 1:
            names = ", ".join(ggufs[:5]) + (", ..." if len(ggufs) > 5 else "")
            raise InvalidRequestError(
                f"{name} has {len(ggufs)} models in it", hint=f"name one of them: {names}"
            )
        return identify_gguf(source, ggufs[0], path)
    files = source.files
    if "config.json" in files or _has(source, ".safetensors") or "adapter_config.json" in files:
        if _has(source, ".safetensors") or not _pickles(source):
            return identify_hf(source, name, path)
    if pickles := _pickles(source):
        return _unsafe(source, pickles, name, path)
    for file in files:
        if kind := _FOREIGN.get(Path(file).suffix.lower()):
            return _foreign(kind, source, file, path)
    if "model_index.json" in files:
        raise NotAModelError(f"{name} is an image model (diffusers), not a text model")
    raise NotAModelError(
        f"there is no model in {name} ({len(files)} files)", hint="name a file or folder of a model"
    )


def _identify_file(source: Source, name: str, path: str) -> Identity:
    suffix = Path(name).suffix.lower()
    if kind := _FOREIGN.get(suffix):
        return _foreign(kind, source, name, path)
    if suffix in (".pt", ".pth", ".ckpt", ".pkl", ".pickle"):
        return _unsafe(source, [name], name, path)  # known by name: not even peeked into
    start = source.read(name, NUM_MAGIC_BYTES)
    if start[:4] == GGUF_MAGIC:
        return identify_gguf(source, name, path)
    if start[:4] in LEGACY_GGML:
        return _legacy(source, name, path, LEGACY_GGML[start[:4]])
    if suffix == ".safetensors":
        return identify_hf(source, name, path, chosen=name)
    if name.endswith(("config.json", ".safetensors.index.json")):
        return identify_hf(source, Path(path).parent.name, str(Path(path).parent))
    error = describe_non_gguf(start)
    if isinstance(error, UnsupportedModelError) and _PICKLES.search(name):
        return _unsafe(source, [name], name, path)
    error.message = f"{name}: {error.message}"
    raise error


def _gguf_models(source: Source) -> list[str]:
    """One name per model: first parts of split sets, and no vision parts."""
    firsts: dict[str, str] = {}
    for name in sorted(source.files):
        base = name.rpartition("/")[2].lower()
        if base.endswith(".gguf") and not base.startswith("mmproj"):
            firsts.setdefault(_SHARD.sub("", name), name)
    return list(firsts.values())


def _has(source: Source, suffix: str) -> bool:
    return any("/" not in name and name.endswith(suffix) for name in source.files)


def _pickles(source: Source) -> list[str]:
    ignored = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth")
    return sorted(
        name
        for name in source.files
        if _PICKLES.search(name) and name.rpartition("/")[2] not in ignored
    )


def _unsafe(source: Source, files: list[str], name: str, path: str) -> Identity:
    return Identity(
        name=name,
        path=path,
        format="pickle",
        size_bytes=sum(source.files[file] for file in files),
        files=tuple(files),
        is_safe=False,
        warnings=(
            f"{files[0]} is a PyTorch pickle: loading one runs whatever program is hidden in it, "
            "so Innkeeper never opens it",
        ),
        advice="get the same model as safetensors or GGUF; most authors offer one",
    )


def _legacy(source: Source, name: str, path: str, kind: str) -> Identity:
    return Identity(
        name=name,
        path=path,
        format="ggml",
        size_bytes=source.files[name],
        files=(name,),
        warnings=(f"this is the old format {kind}, which llama.cpp stopped reading in 2023",),
        advice="get the same model as GGUF",
    )


def _foreign(kind: str, source: Source, name: str, path: str) -> Identity:
    return Identity(
        name=name,
        path=path,
        format=kind,
        size_bytes=source.files[name],
        files=(name,),
        warnings=(f"{kind} models are made for other programs",),
        advice=_ADVICE,
    )


def _snapshot(folder: Path) -> Path:
    """A model's folder in the Hugging Face cache -> its newest snapshot; others are themselves."""
    snapshots = folder / "snapshots"
    if not folder.name.startswith("models--") or not snapshots.is_dir():
        return folder
    found = [entry for entry in snapshots.iterdir() if entry.is_dir()]
    return max(found, key=lambda entry: entry.stat().st_mtime, default=folder)
