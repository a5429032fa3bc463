"""LoRA adapters that requests may name."""

from pathlib import Path

from innkeeper.core import LoraAdapter, ModelFacts
from innkeeper.errors import NotFoundError

_ENDING = ".gguf"


class Loras:
    """The adapters in ``folder``, read anew each time; None = there are none."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """What there is, sorted."""
        return sorted(self._paths(), key=str.lower)

    def find(self, name: str, scale: float = 1.0) -> LoraAdapter:
        """The adapter called ``name``, which never becomes a path. Raises: NotFoundError."""
        path = self._paths().get(name.removesuffix(_ENDING))
        if path is None:
            shown = ", ".join(self.names()[:20])
            raise NotFoundError(
                f"there is no LoRA adapter {name[:80]!r} here",
                field="lora_names",
                hint=f"there are: {shown}" if shown else "put its GGUF into the loras folder",
            )
        return LoraAdapter(str(path), scale)

    def _paths(self) -> dict[str, Path]:
        found = self._folder.glob(f"*{_ENDING}") if self._folder else ()
        return {path.stem: path for path in found}


def lora_names(facts: ModelFacts | None) -> list[str]:
    """Of the adapters that a model was loaded with."""
    return [each.path.removesuffix(_ENDING) for each in facts.loras] if facts else []
