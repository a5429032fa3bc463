"""What can be told of a model before it is loaded."""

from pathlib import Path

from msgspec import Struct

from innkeeper.core import ModelFacts
from innkeeper.errors import InnkeeperError
from innkeeper.formats import gguf
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.formats.quant_names import gguf_quant
from innkeeper.serving.names import ModelEntry

_FILL_KEYS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")


class KnownModel(Struct, frozen=True, kw_only=True):
    """From a file's header, or from the engine that has loaded it."""

    architecture: str
    num_params: int
    num_layers: int
    num_ctx_train: int
    quant: str
    pooling: str
    """As ``ModelFacts.pooling``."""
    chat_template: str | None
    fills: bool
    """Whether it was trained to fill gaps."""


def of_facts(facts: ModelFacts) -> KnownModel:
    """What is known of a loaded model."""
    return KnownModel(
        architecture=facts.architecture,
        num_params=facts.num_params,
        num_layers=facts.num_layers,
        num_ctx_train=facts.num_ctx_train,
        quant=facts.description.rpartition(" ")[2],
        pooling=facts.pooling,
        chat_template=facts.chat_template,
        fills=facts.fill_ids is not None,
    )


class Headers:
    """Reads headers, each one once as long as its file does not change. Thread-safe enough: at
    worst one is read twice."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], KnownModel | None]] = {}

    def read(self, entry: ModelEntry) -> KnownModel | None:
        """None for a file that is gone, or no model."""
        try:
            status = entry.path.stat()
        except OSError:
            return None
        version = (status.st_size, status.st_mtime_ns)
        found = self._known.get(entry.path)
        if found is None or found[0] != version:
            found = self._known[entry.path] = (version, _read(entry.path))
        return found[1]


def _read(path: Path) -> KnownModel | None:
    try:
        header = gguf.read_model(path).header
    except InnkeeperError:
        return None
    return KnownModel(
        architecture=header.architecture,
        num_params=header.num_weights,
        num_layers=_whole(header, "block_count"),
        num_ctx_train=_whole(header, "context_length"),
        quant=gguf_quant(header) or "",
        pooling=header.pooling,
        chat_template=header.text("tokenizer.chat_template"),
        fills=any(header.integer(key) is not None for key in _FILL_KEYS),
    )


def _whole(header: GgufHeader, name: str) -> int:
    value = header.hparam(name)
    return value if isinstance(value, int) else 0
