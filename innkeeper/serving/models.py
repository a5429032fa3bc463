"""Which model is loaded, and keeping it so."""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from innkeeper.core import EngineConfig, ModelFacts
from innkeeper.enginelink.link import EngineLink, StartEngine
from innkeeper.serving.jobs import LoadJob


class EngineDefaults(Struct, frozen=True, kw_only=True):
    """The server's settings for engines; a load request may override some."""

    backend: str = "llama_cpp"
    num_ctx: int = 8192
    """Tokens one request may use."""
    num_pool: int = 0
    """Cells of the KV pool; 0 = ``num_ctx``."""
    max_sequences: int = 4
    max_kept: int = 4
    num_gpu_layers: int = -1
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    num_threads: int = 0
    max_ubatch: int = 512
    flash_attention: bool | None = None
    options: dict[str, str] = {}

    def config(self, path: Path, name: str, overrides: "Overrides | None") -> EngineConfig:
        """What an engine needs to load ``path`` as ``name``."""
        raise NotImplementedError


class Overrides(Struct, frozen=True, kw_only=True):
    """What one load may set differently; None = the server's default."""

    num_ctx: int | None = None
    max_sequences: int | None = None
    num_gpu_layers: int | None = None
    kv_type_k: str | None = None
    kv_type_v: str | None = None
    num_threads: int | None = None
    max_ubatch: int | None = None
    flash_attention: bool | None = None


class ModelEntry(Struct, frozen=True):
    """A model that may be loaded by name."""

    name: str
    path: Path
    size_bytes: int


class Models:
    """The one loaded model and its engine. Belongs to one event loop.

    folder: ``*.gguf`` in it (and below) can be loaded by name.
    log_folder: where each engine's log goes; None = nowhere.
    start: how an engine is started; tests pass their own.
    """

    def __init__(
        self,
        folder: Path,
        defaults: EngineDefaults,
        *,
        log_folder: Path | None = None,
        start: StartEngine = EngineLink.start,
        retry_seconds: Sequence[float] = (0.0, 1.0, 2.0, 5.0, 10.0),
    ) -> None:
        raise NotImplementedError

    @property
    def facts(self) -> ModelFacts | None:
        """The loaded model; kept while its engine restarts; None if nothing is loaded."""
        raise NotImplementedError

    @property
    def job(self) -> LoadJob | None:
        """The load that runs now, if any."""
        raise NotImplementedError

    @property
    def healthy(self) -> bool:
        """A model is loaded and its engine answers."""
        raise NotImplementedError

    def entries(self) -> list[ModelEntry]:
        """What can be loaded by name, sorted: files in the folder (first shards only), and those
        loaded by path."""
        raise NotImplementedError

    def start_load(self, name: str, overrides: Overrides | None = None) -> LoadJob:
        """Loads a listed model, replacing the loaded one if that succeeds.

        Raises: NotFoundError if ``entries`` has no such name.
        """
        raise NotImplementedError

    def start_load_file(self, path: Path, overrides: Overrides | None = None) -> LoadJob:
        """Loads a file that the user of this computer chose; never a path from a request."""
        raise NotImplementedError

    async def unload(self) -> None:
        """Ends the engine; running requests end as crashed."""
        raise NotImplementedError

    async def engine(self) -> EngineLink:
        """The engine to send a request to; waits for a load or a restart that is under way.

        Raises: NoModelError if nothing is loaded; what a restart failed with.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Ends everything. Idempotent."""
        raise NotImplementedError
