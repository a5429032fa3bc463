"""How an engine is started, what it says of its model, and how it is doing."""

from typing import Literal

import msgspec
from msgspec import Struct

_DRAFT_CTX = 4096
_ROWS_OF_GUESSES = 16


class RopeScaling(Struct, frozen=True):
    """How positions are scaled to reach beyond the trained context."""

    kind: Literal["none", "linear", "yarn"]
    factor: float = 1.0
    """Of the trained context."""

    @classmethod
    def of(cls, kind: str, factor: float) -> "RopeScaling | None":
        """From settings; None for ``auto``. Raises: msgspec.ValidationError for another kind."""
        return None if kind == "auto" else msgspec.convert({"kind": kind, "factor": factor}, cls)


class LoraAdapter(Struct, frozen=True):
    """Small weights that are added to a model's own, ``scale`` times."""

    path: str
    scale: float = 1.0


class EngineConfig(Struct, frozen=True, kw_only=True):
    """Everything an engine process needs to load one model; the first frame it receives."""

    backend: str
    """Module name under ``innkeeper.backends``."""
    path: str
    """First file of the model, or its folder."""
    name: str
    num_ctx: int
    """Tokens that one request may use, prompt and reply together."""
    num_pool: int
    """Cells of the shared KV pool, at least ``num_ctx``."""
    max_sequences: int = 4
    """Requests (choices) that generate at the same time."""
    max_kept: int = 4
    """Idle sequences whose cache is kept beside them."""
    kv_reuse: Literal["exact", "auto", "fast", "turbo"] = "auto"
    """Which edits of a prompt may be reused over, where the request does not say."""
    idle_refresh: bool = True
    """Whether to read while nothing generates: what a group's other speakers have not heard, and
    approximate cache again, exactly."""
    cache_folder: str = ""
    """Where states of chats are kept on disk; empty = nowhere."""
    disk_cache_bytes: int = 0
    """Most that they may take there."""
    ram_cache_bytes: int = 0
    """Most memory for states of chats that the pool has no room for."""
    num_gpu_layers: int = -1
    """-1 = all that the backend can place."""
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    swa_full: bool | None = None
    """Whether sliding-window layers keep all tokens, so that prompts can be edited in the cache;
    None = no, unless it is planned for."""
    num_threads: int = 0
    """0 = measured and adapted."""
    max_threads: int = 0
    """The most that adapting may choose; 0 = all usable cores."""
    max_slice_seconds: float = 0.25
    """A prefill slice is sized to take at most this long."""
    max_ubatch: int = 0
    """Most rows of one batch; 0 = 512 on a GPU, 128 on a CPU, where more only costs memory."""
    flash_attention: bool | None = None
    """None = on for GPUs or when V is quantized, else off."""
    pooling: str = ""
    """``mean``, ``cls``, ``last`` or ``rank``: the engine makes vectors of texts, and no text."""
    repack: bool = True
    """Whether weights are copied into the CPU's own layout, where it has one."""
    num_cpu_experts: int = 0
    """Layers, from the first, whose experts stay in RAM; -1 = those that fit nowhere else."""
    tensor_split: tuple[float, ...] = ()
    """Share of the model on each GPU; empty = by what is free there."""
    rope: RopeScaling | None = None
    """None = as the model says."""
    mmap: bool = True
    """Whether weights are read from the mapped file, or into memory of their own."""
    mlock: bool = False
    """Whether weights are pinned in RAM."""
    draft_path: str = ""
    """A small model of the same vocabulary that guesses for this one; empty = none."""
    notes: tuple[str, ...] = ()
    """Sentences about how these settings were chosen; they come back in the facts."""
    loras: tuple[LoraAdapter, ...] = ()
    options: dict[str, str] = {}
    """Backend-specific settings; each backend documents and checks its own."""

    def draft_config(self) -> "EngineConfig | None":
        """What the draft model is loaded with: one sequence, and a context that is never longer
        than guesses need."""
        if not self.draft_path or self.pooling not in ("", "auto", "none"):
            return None
        num_ctx = min(self.num_ctx or _DRAFT_CTX, _DRAFT_CTX)
        return EngineConfig(
            backend=self.backend,
            path=self.draft_path,
            name="draft model",
            num_ctx=num_ctx,
            num_pool=num_ctx,
            max_sequences=1,
            max_kept=0,
            num_gpu_layers=0 if self.num_gpu_layers == 0 else -1,
            num_threads=self.num_threads,
            max_threads=self.max_threads,
            repack=self.repack,
            mmap=self.mmap,
            mlock=self.mlock,
        )

    def num_sequence_ids(self, *, can_edit: bool, keeps_windows: bool = False) -> int:
        """Sequences that a backend keeps apart: those that generate, those that are kept, and,
        where prompts can be edited in the cache, one for each that generates to park chunks on,
        and one for what fell out, on its way. Each of them has a twin in llama.cpp where
        sliding-window layers keep all tokens (``backends.llama_cpp.memory``).

        Else a sliding-window cache grows with this number, and cannot be edited."""
        return num_sequence_ids(
            self.max_sequences, self.max_kept, can_edit=can_edit, keeps_windows=keeps_windows
        )


def num_sequence_ids(
    max_sequences: int, max_kept: int, *, can_edit: bool, keeps_windows: bool = False
) -> int:
    """As ``EngineConfig.num_sequence_ids``, before there is a config."""
    count = max_sequences + max_kept + (max_sequences + 1 if can_edit else 0)
    return 2 * count if keeps_windows else count


def num_outputs(num_sequences: int, max_rows: int) -> int:
    """Rows of a batch that want logits, at most: one for each sequence, or a token with the
    guesses behind it. Buffers grow with their number."""
    return max(num_sequences, min(max_rows, _ROWS_OF_GUESSES))


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What a loaded model is. Sent once by the engine; read by every dialect."""

    name: str
    path: str
    backend: str
    architecture: str
    description: str
    """As the backend words it, such as ``llama 1B Q4_K - Medium``."""
    num_params: int
    size_bytes: int
    num_vocab: int
    num_ctx: int
    num_ctx_train: int
    num_pool: int
    max_sequences: int
    bos_text: str
    eos_text: str
    add_bos: bool
    bos_id: int | None
    end_ids: tuple[int, ...]
    """Every token that ends a reply."""
    max_token_bytes: int
    """Longest token; a text of ``b`` bytes has at least ``b / max_token_bytes`` tokens."""
    chat_template: str | None
    loras: tuple[LoraAdapter, ...] = ()
    """Without their folders."""
    draft: str = ""
    """Name of the draft model; empty = none."""
    fill_ids: tuple[int, int, int] | None = None
    """The tokens before the text around a gap: before it, behind it, and of the gap itself."""
    pooling: str = ""
    """How it makes vectors of texts; empty = it writes text."""
    num_layers: int = 0
    num_gpu_layers: int = 0
    device: str = "CPU"
    load_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """How its settings were chosen, in sentences."""
    warnings: tuple[str, ...] = ()


class EngineStats(Struct, frozen=True, kw_only=True):
    """The engine's state at one moment, answered to a ping without waiting for a step."""

    seconds_in_step: float
    """How long the current step has been running; 0 when idle."""
    num_steps: int
    num_running: int
    num_waiting: int
    num_cells_used: int
    num_cells: int
    num_kept: int
    num_threads: int
    prompt_tokens: int
    predicted_tokens: int
    cached_tokens: int = 0
    """Prompt tokens whose cache was reused exactly."""
    approximate_tokens: int = 0
    """Prompt tokens whose cache was reused over an edit."""
    refreshed_tokens: int = 0
    """Tokens read ahead, or again exactly, while nothing generated."""
    restored_tokens: int = 0
    """Tokens that came back from memory or disk instead of being read."""
    ram_cache_bytes: int = 0
    disk_cache_bytes: int = 0
    """What states of chats take there now; on disk, those of this model."""
