"""Ollama's store, read where it is: its manifests name models, its blobs hold them."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from innkeeper.library.places import Place

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MODEL_LAYER = "application/vnd.ollama.image.model"
_MAX_MANIFEST_BYTES = 1 << 20


def ollama_folder() -> Path:
    """Where Ollama keeps models: ``OLLAMA_MODELS``, or its usual place."""
    given = os.environ.get("OLLAMA_MODELS")
    return Path(given).expanduser() if given else Path.home() / ".ollama" / "models"


def find_ollama(root: Path) -> Iterator[Place]:
    """Its models, as ``ollama/NAME:TAG``. What is damaged, or names another place, is left out."""
    manifests = root / "manifests"
    for path in sorted(manifests.glob("*/*/*/*")):
        digest = _model_digest(path)
        if digest is None:
            continue
        blob = root / "blobs" / f"sha256-{digest}"
        owner, name, tag = path.relative_to(manifests).parts[1:]
        shown = name if owner == "library" else f"{owner}/{name}"
        if blob.is_file():
            yield Place(f"ollama/{shown}:{tag}", blob, "gguf", (blob,))


def _model_digest(manifest: Path) -> str | None:
    try:
        if manifest.stat().st_size > _MAX_MANIFEST_BYTES:
            return None
        layers = json.loads(manifest.read_bytes())["layers"]
        found = next(layer["digest"] for layer in layers if layer["mediaType"] == _MODEL_LAYER)
        match = _DIGEST.fullmatch(found)
    except (OSError, ValueError, KeyError, TypeError, StopIteration, RecursionError):
        return None
    return match[1] if match else None
