"""Models in Ollama's words: what is listed, loaded, and shown."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from innkeeper.errors import NotFoundError
from innkeeper.prompt import CHATML, reply_form
from innkeeper.serving import LoadedModel, ModelEntry, Models
from innkeeper.serving.headers import Headers, KnownModel, of_facts
from innkeeper.serving.names import bare, match

_NEVER = "2318-01-01T00:00:00Z"


def listed(models: Models) -> list[ModelEntry]:
    """What can be loaded, and what is loaded, even if its file is gone."""
    entries = {each.name: each for each in models.entries()}
    gone = [each.facts for each in models.loaded if each.name not in entries]
    return [
        *(ModelEntry(each.name, Path(each.path), each.size_bytes) for each in gone),
        *entries.values(),
    ]


def find(name: str, models: Models) -> ModelEntry:
    """Raises: NotFoundError, as Ollama's clients expect, whatever is loaded."""
    there = {each.name: each for each in listed(models)}
    if (found := match(bare(name), there)) is not None:
        return there[found]
    shown = ", ".join(there) or "none yet"
    raise NotFoundError(f"model '{name[:80]}' not found", field="model", hint=f"here: {shown}")


class Cards:
    """What is known of each model: of loaded ones from the engine, of others from their files."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._headers = Headers()

    def tags(self) -> list[dict[str, Any]]:
        """Every model. Reads files; run it in a thread."""
        return [self._tag(each) for each in listed(self._models)]

    def loaded(self, model: LoadedModel) -> dict[str, Any]:
        """One of ``/api/ps``."""
        facts = model.facts
        tag = self._tag(ModelEntry(facts.name, Path(facts.path), facts.size_bytes))
        del tag["modified_at"]
        on_gpu = facts.num_gpu_layers / facts.num_layers if facts.num_layers else 0.0
        vram = 0 if facts.device == "CPU" else round(facts.size_bytes * min(1.0, on_gpu))
        left = self._models.seconds_left(model)
        leaves = _NEVER if left is None else time_text(datetime.now(UTC) + timedelta(seconds=left))
        return {**tag, "expires_at": leaves, "size_vram": vram, "context_length": facts.num_ctx}

    def about(self, entry: ModelEntry) -> dict[str, Any]:
        """The answer of ``/api/show``. May read the file; run it in a thread."""
        known = self._known(entry)
        tag = self._tag(entry)
        return {
            "modelfile": f"FROM {entry.name}",
            "parameters": "",
            "template": (known.chat_template or CHATML) if known else "",
            "details": tag["details"],
            "model_info": _info(known) if known else {},
            "capabilities": _capabilities(known),
            "modified_at": tag["modified_at"],
        }

    def _known(self, entry: ModelEntry) -> KnownModel | None:
        for each in self._models.loaded:
            if each.name == entry.name:
                return of_facts(each.facts)
        return self._headers.read(entry)

    def _tag(self, entry: ModelEntry) -> dict[str, Any]:
        name = f"{entry.name}:latest"
        try:
            seconds = entry.path.stat().st_mtime
        except OSError:
            seconds = 0.0
        version = f"{entry.name} {entry.size_bytes} {seconds}".encode()
        return {
            "name": name,
            "model": name,
            "modified_at": time_text(datetime.fromtimestamp(seconds, UTC)),
            "size": entry.size_bytes,
            "digest": hashlib.sha256(version).hexdigest(),
            "details": _details(self._known(entry)),
        }


def time_text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _info(known: KnownModel) -> dict[str, Any]:
    return {
        "general.architecture": known.architecture,
        "general.parameter_count": known.num_params,
        f"{known.architecture}.context_length": known.num_ctx_train,
        f"{known.architecture}.block_count": known.num_layers,
    }


def _capabilities(known: KnownModel | None) -> list[str]:
    """What clients switch features on by. Tools need nothing of the model."""
    if known is not None and known.pooling:
        return ["embedding"]
    found = ["completion", "tools"]
    if known is not None and known.fills:
        found.append("insert")
    if known is not None and reply_form.names_reasoning(known.chat_template):
        found.append("thinking")
    return found


def _details(known: KnownModel | None) -> dict[str, Any]:
    family = known.architecture if known else ""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": _rounded(known.num_params) if known else "",
        "quantization_level": known.quant if known else "",
    }


def _rounded(num_params: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6)):
        if num_params >= size:
            return f"{num_params / size:.1f}{unit}"
    return f"{num_params / 1e3:.0f}K"
