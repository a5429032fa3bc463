"""What the user asked for, beside what the planner chooses."""

from dataclasses import dataclass

from innkeeper.core import RopeScaling, num_sequence_ids
from innkeeper.planner.shape import ModelShape


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user asked for; None = choose."""

    num_ctx: int | None = None
    num_pool: int | None = None
    max_sequences: int = 4
    max_kept: int = 4
    num_ids: int | None = None
    """llama.cpp's own ``n_seq_max`` instead of what follows from the two above."""
    kv_type_k: str | None = None
    kv_type_v: str | None = None
    swa_full: bool | None = None
    """Whether sliding-window layers keep all tokens; None = where there is room to spare."""
    num_gpu_layers: int | None = None
    flash_attention: bool | None = None
    max_batch: int | None = None
    """None = one micro-batch."""
    max_ubatch: int | None = None
    num_outputs: int | None = None
    """None = as ``core.num_outputs`` says; 0 = every row of a batch."""
    kv_unified: bool = True
    repack: bool = True
    mmap: bool = True
    mlock: bool = False
    tensor_split: tuple[float, ...] = ()
    """Share of each GPU; empty = by what is free on it."""
    num_cpu_experts: int | None = None
    """Blocks whose experts stay in RAM."""
    rope: RopeScaling | None = None
    """Another scaling of positions than the model's own."""
    freed_bytes: int = 0
    """RAM that a model unloaded first gives back."""
    freed_gpu_bytes: int = 0

    def num_sequence_ids(self, shape: ModelShape, *, swa_full: bool) -> int:
        """llama.cpp's ``n_seq_max``, as ``EngineConfig.num_sequence_ids`` counts it."""
        if self.num_ids is not None:
            return self.num_ids
        return num_sequence_ids(
            self.max_sequences,
            self.max_kept,
            can_edit=shape.can_edit(swa_full=swa_full),
            keeps_windows=shape.keeps_windows(swa_full=swa_full),
        )
