"""What engines are started with: the server's settings, and what one load sets differently."""

from pathlib import Path

import msgspec
from msgspec import Struct

from innkeeper.core import EngineConfig, LoraAdapter, RopeScaling
from innkeeper.serving.fit import AUTO


class EngineDefaults(Struct, frozen=True, kw_only=True):
    """The server's settings for engines; a load may override some."""

    backend: str = "llama_cpp"
    num_ctx: int = 0
    """Tokens one request may use; 0 = what fits the model and this computer."""
    num_pool: int = 0
    """Cells of the KV pool; 0 = ``num_ctx``, or room for a second chat where memory allows."""
    max_sequences: int = 4
    max_kept: int = 4
    num_gpu_layers: int = -1
    kv_type_k: str = AUTO
    kv_type_v: str = AUTO
    swa_full: bool | None = None
    """Whether sliding-window layers keep all tokens; None = where there is room to spare."""
    num_threads: int = 0
    num_cpu_experts: int = -1
    tensor_split: tuple[float, ...] = ()
    rope: RopeScaling | None = None
    mmap: bool = True
    mlock: bool = False
    kv_reuse: str = "auto"
    idle_refresh: bool = True
    cache_folder: str = ""
    disk_cache_bytes: int = 0
    ram_cache_bytes: int = -1
    """-1 = a share of what the model leaves free."""
    max_ubatch: int = 0
    flash_attention: bool | None = None
    pooling: str = "auto"
    """``auto`` = as the model's header says; ``none`` = it writes text."""
    loras: tuple[LoraAdapter, ...] = ()
    draft_path: str = ""
    """The draft model's file; empty = none."""
    options: dict[str, str] = {}

    def config(self, path: Path, name: str, overrides: "Overrides | None") -> EngineConfig:
        """What an engine needs to load ``path`` as ``name``."""
        values = msgspec.structs.asdict(self)
        if overrides is not None:
            changes = msgspec.structs.asdict(overrides)
            values |= {key: value for key, value in changes.items() if value is not None}
        if values["num_pool"]:
            values["num_pool"] = max(values["num_pool"], values["num_ctx"])
        return EngineConfig(path=str(path), name=name, **values)


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
    num_cpu_experts: int | None = None
    tensor_split: tuple[float, ...] | None = None
    mmap: bool | None = None
    mlock: bool | None = None
