"""A model's sizes, from the header of its GGUF: what every formula of the planner starts from."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from innkeeper.core import RopeScaling
from innkeeper.core.shifting import can_shift
from innkeeper.errors import CorruptModelError, UnsupportedModelError
from innkeeper.formats.gguf_header import GgufHeader

MAX_LAYERS = 1024
_MAX_SIZE = 1 << 31
_WINDOW_PERIODS = {
    "gemma2": 2,
    "gpt-oss": 2,
    "cohere2": 4,
    "exaone4": 4,
    "gemma3": 6,
    "gemma3n": 5,
}
"""Architectures with sliding windows: of each so many layers, the last one sees everything."""
_DEFAULT_WINDOWS = {"gemma2": 4096, "exaone4": 4096}
_EXAONE4_SLIDING_LAYERS = 64
_ALL_RECURRENT = frozenset({"mamba", "mamba2"})
_INTERVAL_HYBRIDS = frozenset({"qwen3next", "qwen35", "qwen35moe"})
_HEADLESS_HYBRIDS = frozenset({"jamba", "granitehybrid", "lfm2", "lfm2moe", "nemotron_h", "plamo2"})
"""Hybrids whose recurrent layers are those without key heads."""
MEASURED_ARCHITECTURES = frozenset(
    {
        *("llama", "mistral3", "qwen2", "qwen3", "qwen3moe", "gemma", "gemma2", "gemma3", "phi3"),
        *("deepseek2", "gpt-oss", "mamba", "qwen3next", "command-r", "cohere2", "olmo2", "glm4"),
        *("granite", "smollm3", "exaone", "exaone4", "seed_oss", "ernie4_5", "hunyuan-dense"),
        *("internlm2", "minicpm", "stablelm", "phi2"),
    }
)
"""Where the formulas were compared with llama.cpp's own allocations, byte by byte."""


class Layer(NamedTuple):
    """What one layer keeps for every token, in weights; and which kind of layer it is."""

    key_width: int
    value_width: int
    is_sliding: bool
    is_recurrent: bool


@dataclass(frozen=True)
class ModelShape:
    """The sizes that memory depends on."""

    architecture: str
    width: int
    num_vocab: int
    num_ctx_train: int
    num_ctx_unscaled: int
    """Before the scaling of positions that the header asks for; else the same."""
    layers: tuple[Layer, ...]
    num_heads: int
    key_head: int
    value_head: int
    ffn_width: int
    is_gated: bool
    """Whether the feed-forward part multiplies two projections (SwiGLU) or has only one."""
    num_experts: int
    num_experts_used: int
    expert_width: int
    sliding_window: int
    """0 = none."""
    is_mla: bool
    """Keys and values compressed into one (DeepSeek): no value cache."""
    mla_key_head: int
    mla_value_head: int
    inner_width: int
    """Of recurrent layers."""
    conv_width: int
    """F32 numbers of convolution history per recurrent layer and sequence."""
    state_width: int
    """F32 numbers of state per recurrent layer and sequence."""

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def is_measured(self) -> bool:
        """Whether the formulas are known to hold; if not, only a dry run can tell."""
        return self.architecture in MEASURED_ARCHITECTURES

    @cached_property
    def has_recurrent(self) -> bool:
        return any(layer.is_recurrent for layer in self.layers)

    @cached_property
    def is_hybrid(self) -> bool:
        """Attention and recurrent layers in one model."""
        return self.has_recurrent and any(layer.key_width for layer in self.layers)

    @cached_property
    def has_sliding(self) -> bool:
        return any(layer.is_sliding for layer in self.layers)

    def can_edit(self, *, swa_full: bool = False) -> bool:
        """Whether cached keys may be moved: not in recurrent states, and in sliding windows only
        where those keep all tokens."""
        is_movable = can_shift(self.architecture, has_windows=self.has_sliding, swa_full=swa_full)
        return is_movable and not self.has_recurrent

    def keeps_windows(self, *, swa_full: bool) -> bool:
        """Whether sliding-window layers keep all tokens: only where that makes edits possible."""
        return self.has_sliding and self.can_edit(swa_full=swa_full)

    def num_ctx_with(self, rope: RopeScaling | None) -> int:
        """The longest context that makes sense with ``rope``; None = the header's scaling."""
        if rope is None:
            return self.num_ctx_train
        return int(self.num_ctx_unscaled * rope.factor)


def read_shape(header: GgufHeader) -> ModelShape:
    """The shape that ``header`` describes.

    Raises: UnsupportedModelError if the file is no text model (it lacks sizes); CorruptModelError
    if a size is impossible.
    """
    sizes = _Sizes(header)
    layers = _layers(header, sizes)
    key_mla = sizes.get("attention.key_length_mla")
    value_mla = sizes.get("attention.value_length_mla")
    ffn_width = max(sizes.per_layer("feed_forward_length", len(layers), 0))
    return ModelShape(
        architecture=header.architecture,
        width=sizes.need("embedding_length"),
        num_vocab=_num_vocab(header, sizes),
        num_ctx_train=sizes.get("context_length"),
        num_ctx_unscaled=sizes.get("rope.scaling.original_context_length")
        or sizes.get("context_length"),
        layers=layers,
        num_heads=max(sizes.per_layer("attention.head_count", len(layers), 0)),
        key_head=sizes.key_head,
        value_head=sizes.value_head,
        ffn_width=ffn_width,
        is_gated=_is_gated(header, ffn_width),
        num_experts=sizes.get("expert_count"),
        num_experts_used=sizes.get("expert_used_count"),
        expert_width=sizes.get("expert_feed_forward_length") or ffn_width,
        sliding_window=_window(header, sizes) if any(layer.is_sliding for layer in layers) else 0,
        is_mla=bool(key_mla and value_mla),
        mla_key_head=key_mla,
        mla_value_head=value_mla,
        inner_width=sizes.get("ssm.inner_size"),
        conv_width=_conv_width(sizes),
        state_width=sizes.get("ssm.inner_size") * sizes.get("ssm.state_size"),
    )


class _Sizes:
    """Checked access to ``ARCHITECTURE.*``."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        heads = max(self.per_layer("attention.head_count", 1, 0))
        default = self.need("embedding_length") // heads if heads else 0
        self.key_head = self.get("attention.key_length") or default
        self.value_head = self.get("attention.value_length") or default

    def get(self, name: str, default: int = 0) -> int:
        value = self.header.hparam(name)
        if isinstance(value, bool) or not isinstance(value, int):
            return default
        return self._checked(name, value)

    def need(self, name: str) -> int:
        value = self.get(name)
        if not value:
            architecture = self.header.architecture or "(none)"
            raise UnsupportedModelError(
                f"the header of this {architecture} file lacks {name}: it is not a text model",
                hint="name the main model's file",
            )
        return value

    def per_layer(self, name: str, num_layers: int, default: int) -> list[int]:
        """One value per layer, from a single number or an array."""
        value = self.header.hparam(name)
        if isinstance(value, tuple) and value:
            found = [self._checked(name, item) for item in value if isinstance(item, int)]
            return (found + [found[-1] if found else default] * num_layers)[: max(1, num_layers)]
        return [self.get(name, default)] * max(1, num_layers)

    def _checked(self, name: str, value: int) -> int:
        if not 0 <= value < _MAX_SIZE:
            raise CorruptModelError(
                f"{self.header.architecture}.{name} is {value:,}", hint="download it again"
            )
        return value


def _layers(header: GgufHeader, sizes: _Sizes) -> tuple[Layer, ...]:
    count = sizes.need("block_count") - sizes.get("nextn_predict_layers")
    if not 0 < count <= MAX_LAYERS:
        raise CorruptModelError(
            f"{header.architecture}.block_count is {count:,}; at most {MAX_LAYERS} are possible",
            hint="download it again",
        )
    heads = sizes.per_layer("attention.head_count", count, 0)
    default = heads[0]
    key_heads = sizes.per_layer("attention.head_count_kv", count, default)
    sliding = _sliding_layers(header, sizes, count)
    recurrent = _recurrent_layers(header, sizes, count, key_heads)
    is_mla = bool(sizes.get("attention.key_length_mla"))
    num_own = count - sizes.get("attention.shared_kv_layers")
    layers = []
    for index in range(count):
        keeps = key_heads[index] if index < num_own and not recurrent[index] else 0
        key_head = sizes.key_head
        value_head = 0 if is_mla else sizes.value_head
        if sliding[index]:
            key_head = sizes.get("attention.key_length_swa") or key_head
            value_head = sizes.get("attention.value_length_swa") or value_head
        layers.append(Layer(keeps * key_head, keeps * value_head, sliding[index], recurrent[index]))
    return tuple(layers)


def _window(header: GgufHeader, sizes: _Sizes) -> int:
    default = _DEFAULT_WINDOWS.get(header.architecture, 0)
    return sizes.get("attention.sliding_window", default)


def _sliding_layers(header: GgufHeader, sizes: _Sizes, count: int) -> list[bool]:
    period = _WINDOW_PERIODS.get(header.architecture)
    pattern = header.hparam("attention.sliding_window_pattern")
    if header.architecture == "phi3" or not _window(header, sizes):
        return [False] * count  # llama.cpp ignores phi3's window
    if header.architecture == "exaone4" and count != _EXAONE4_SLIDING_LAYERS:
        return [False] * count  # only the 32B model has one
    if isinstance(pattern, tuple):
        return [bool(index < len(pattern) and pattern[index]) for index in range(count)]
    if period is None:
        return [False] * count  # as Mistral's: llama.cpp ignores the key
    period = sizes.get("attention.sliding_window_pattern", period)
    return [period == 0 or index % period < period - 1 for index in range(count)]


def _recurrent_layers(
    header: GgufHeader, sizes: _Sizes, count: int, key_heads: list[int]
) -> list[bool]:
    architecture = header.architecture
    if architecture in _ALL_RECURRENT:
        return [True] * count
    if architecture in _INTERVAL_HYBRIDS:
        interval = sizes.get("full_attention_interval", 4) or 4
        return [(index + 1) % interval != 0 for index in range(count)]
    if architecture in _HEADLESS_HYBRIDS:
        return [heads == 0 for heads in key_heads]
    return [False] * count


def _conv_width(sizes: _Sizes) -> int:
    """Source: ``n_embd_r`` in llama-hparams.cpp, LFM2 and Mamba-like."""
    if cache := sizes.get("shortconv.l_cache"):
        return sizes.get("embedding_length") * (cache - 1)
    inner, state = sizes.get("ssm.inner_size"), sizes.get("ssm.state_size")
    kernel, groups = sizes.get("ssm.conv_kernel"), sizes.get("ssm.group_count")
    return max(kernel - 1, 0) * (inner + 2 * groups * state)


def _is_gated(header: GgufHeader, ffn_width: int) -> bool:
    """A gate of its own, or fused into a projection twice as wide; True if there is no telling."""
    found = [tensor for tensor in header.tensors if ".ffn_up" in tensor.name]
    if not found or any(".ffn_gate" in tensor.name for tensor in header.tensors):
        return True
    return any(len(tensor.shape) > 1 and tensor.shape[1] > ffn_width for tensor in found)


def _num_vocab(header: GgufHeader, sizes: _Sizes) -> int:
    """As llama.cpp counts it: the token list, else ``vocab_size``, else the embedding's rows."""
    if tokens := header.array_length("tokenizer.ggml.tokens"):
        return tokens
    embedding = header.tensors_by_name.get("token_embd.weight")
    rows = embedding.shape[1] if embedding and len(embedding.shape) > 1 else 0
    return sizes.get("vocab_size") or rows
