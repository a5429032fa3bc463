"""How much memory a GGUF model needs in llama.cpp, from its header alone.

Weights, KV cache, recurrent state and output buffer are exact for measured architectures;
the compute buffer is within some percent, so a margin is added to it; the rest are the terms that
nobody reports. Source: llama.cpp's llama-context, llama-kv-cache and ggml-alloc, compared with
4,056 real allocations (benchmarks/fit_error.py).
"""

from dataclasses import asdict, dataclass

from innkeeper.formats.ggml_types import TYPES_BY_NAME, GgmlType
from innkeeper.formats.gguf_header import GgufHeader
from innkeeper.planner.placement import Placement, sums
from innkeeper.planner.shape import Layer, ModelShape, read_shape
from innkeeper.planner.weights import padded, weigh
from innkeeper.units import MIB

CELL_STEP = 256
"""llama.cpp rounds caches up to this many cells."""
COMPUTE_MARGIN = 0.08
MIN_COMPUTE_MARGIN_BYTES = 16 * MIB
PROCESS_BYTES = 32 * MIB
"""Python, libraries and the engine's own buffers: 24 MiB measured when idle."""

_CELL_BYTES = 52


@dataclass(frozen=True, kw_only=True)
class ContextSettings:
    """How the model would be run; the names are llama.cpp's where it has one."""

    num_pool: int
    """Cells of the KV cache (``n_ctx``), of all sequences together."""
    max_sequences: int = 1
    kv_type_k: str = "f16"
    kv_type_v: str = "f16"
    max_batch: int = 2048
    max_ubatch: int = 512
    num_outputs: int = 0
    """Rows of one batch that want logits (``n_outputs_max``); 0 = all."""
    flash_attention: bool = False
    kv_unified: bool = True
    swa_full: bool = False
    num_gpu_layers: int = 0
    """As in ``Placement``, like the next two."""
    num_cpu_experts: int = 0
    gpu_shares: tuple[float, ...] = (1.0,)
    mmap: bool = True
    """Whether weights stay in the mapped file; otherwise they are read into memory."""
    mlock: bool = False
    """Whether they are pinned in RAM."""
    repack_types: frozenset[str] = frozenset()
    """Types that this CPU keeps a rearranged copy of; empty = repacking off."""

    def placement(self, num_layers: int) -> Placement:
        """Of a model with so many blocks."""
        return Placement(num_layers, self.num_gpu_layers, self.num_cpu_experts, self.gpu_shares)


@dataclass(frozen=True)
class GpuBytes:
    """What lies on one GPU."""

    weights_bytes: int
    context_bytes: int
    """KV cache and recurrent state."""
    compute_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.context_bytes + self.compute_bytes


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes, one field per kind. What is not in ``gpus`` lies in RAM."""

    weights_bytes: int
    """All weights, as llama.cpp pads them."""
    mapped_bytes: int
    """Of these, in the mapped file: reclaimable, but should stay cached."""
    unmapped_bytes: int
    """Weights read into anonymous memory, where the file is not mapped."""
    repack_bytes: int
    """Anonymous copies of weights in the CPU's own layout."""
    kv_bytes: int
    recurrent_bytes: int
    output_bytes: int
    compute_bytes: int
    """Without margin."""
    margin_bytes: int
    work_bytes: int
    """Scratch of CPU kernels, in nobody's report."""
    vocab_bytes: int
    process_bytes: int
    gpus: tuple[GpuBytes, ...] = ()
    is_exact: bool = True
    """False: the compute term is only a guess; ask for a dry run."""
    is_verified: bool = False
    """True: llama.cpp said so itself."""
    is_locked: bool = False
    """True: all that is mapped is pinned in RAM, also what was copied elsewhere."""

    @property
    def total_bytes(self) -> int:
        """RAM that must really be there: everything anonymous, margin included."""
        return (
            self.repack_bytes
            + self.unmapped_bytes
            + self.kv_bytes
            + self.recurrent_bytes
            + self.output_bytes
            + self.compute_bytes
            + self.margin_bytes
            + self.work_bytes
            + self.vocab_bytes
            + self.process_bytes
        )

    @property
    def resident_bytes(self) -> int:
        """RAM for running at full speed: ``total_bytes`` and the mapped weights that are read.

        Weights that were copied into the CPU's layout, or to the GPU, are not read again.
        """
        if self.is_locked:
            return self.total_bytes + self.mapped_bytes
        copied = self.repack_bytes + sum(gpu.weights_bytes for gpu in self.gpus)
        return self.total_bytes + max(0, self.mapped_bytes - copied)

    @property
    def ram_weights_bytes(self) -> int:
        """Weights that take up RAM at full speed, in the file cache or apart."""
        return self.resident_bytes - self.total_bytes + self.repack_bytes + self.unmapped_bytes

    @property
    def context_bytes(self) -> int:
        """KV cache and recurrent state, wherever they lie."""
        return self.kv_bytes + self.recurrent_bytes + sum(gpu.context_bytes for gpu in self.gpus)

    @property
    def buffer_bytes(self) -> int:
        """Everything that is neither weights nor context."""
        in_ram = self.total_bytes - self.repack_bytes - self.unmapped_bytes
        in_ram -= self.kv_bytes + self.recurrent_bytes
        return in_ram + sum(gpu.compute_bytes for gpu in self.gpus)

    def to_json(self) -> dict[str, int]:
        """The bytes of each kind in RAM, and their sum."""
        kinds = {name: size for name, size in asdict(self).items() if name.endswith("_bytes")}
        return {**kinds, "total_bytes": self.total_bytes}


@dataclass(frozen=True)
class EffectiveSizes:
    """What llama.cpp makes of the settings: rounded cells, capped batches."""

    num_cells: int
    """Per stream."""
    num_sliding_cells: int
    num_streams: int
    num_ubatch: int
    num_outputs: int


def effective_sizes(shape: ModelShape, settings: ContextSettings) -> EffectiveSizes:
    """Source: llama-context.cpp and llama-kv-cache-iswa.cpp."""
    sequences = max(1, settings.max_sequences)
    cells = padded(settings.num_pool, CELL_STEP)
    streams = 1
    if not settings.kv_unified:
        cells, streams = padded(cells // sequences, CELL_STEP), sequences
    batch = min(settings.max_batch, settings.num_pool)
    ubatch = min(settings.max_ubatch, batch)
    windows = sequences if settings.kv_unified else 1
    sliding = cells
    if not settings.swa_full:
        sliding = padded(min(cells, shape.sliding_window * windows + ubatch), CELL_STEP)
    outputs = min(ubatch, settings.num_outputs or batch)
    return EffectiveSizes(cells, sliding, streams, ubatch, outputs)


def estimate(
    header: GgufHeader, settings: ContextSettings, shape: ModelShape | None = None
) -> MemoryEstimate:
    """Memory of the model ``header`` run with ``settings``; ``shape`` if it was read before.

    Raises: UnsupportedModelError, CorruptModelError (sizes that make no sense), KeyError for a KV
    type that is none.
    """
    shape = shape or read_shape(header)
    sizes = effective_sizes(shape, settings)
    placement = settings.placement(shape.num_layers)
    weights = weigh(header, placement, settings.repack_types)
    cache = {layer: _kv_layer_bytes(shape, layer, sizes, settings) for layer in set(shape.layers)}
    kv, gpu_kv = _spread(placement, [cache[layer] for layer in shape.layers])
    state = 4 * max(1, settings.max_sequences) * (shape.conv_width + shape.state_width)
    recurrent, gpu_recurrent = _spread(placement, [state * x.is_recurrent for x in shape.layers])
    compute = host_compute = _compute_bytes(shape, sizes, settings)
    if placement.is_whole:  # inputs only: embeddings and mask
        host_compute = _mask_bytes(shape, sizes, settings) + 4 * sizes.num_ubatch * shape.width
    return MemoryEstimate(
        weights_bytes=weights.total,
        mapped_bytes=header.tensor_bytes if settings.mmap else 0,
        unmapped_bytes=0 if settings.mmap else weights.in_ram,
        repack_bytes=weights.repacked,
        kv_bytes=kv,
        recurrent_bytes=recurrent,
        output_bytes=4 * shape.num_vocab * max(settings.max_sequences, settings.num_outputs),
        compute_bytes=host_compute,
        margin_bytes=max(int(host_compute * COMPUTE_MARGIN), MIN_COMPUTE_MARGIN_BYTES),
        work_bytes=_work_bytes(shape, sizes, settings),
        vocab_bytes=_vocab_bytes(header),
        process_bytes=PROCESS_BYTES,
        gpus=tuple(
            GpuBytes(on_gpu, cache + states, compute + weights.streamed if on_gpu else 0)
            for on_gpu, cache, states in zip(weights.on_gpus, gpu_kv, gpu_recurrent, strict=True)
        ),
        is_exact=_is_compute_known(shape, settings),
        is_locked=settings.mlock and settings.mmap,
    )


def _spread(placement: Placement, layers: list[int]) -> tuple[int, list[int]]:
    """(in RAM, on each GPU) of what every block keeps."""
    places = [placement.layer(index) for index in range(len(layers))]
    return sums(placement.num_gpus, list(zip(places, layers, strict=True)))


def _is_compute_known(shape: ModelShape, settings: ContextSettings) -> bool:
    blind = shape.is_hybrid or (shape.is_mla and not settings.flash_attention)
    return shape.is_measured and not blind


def _kv_layer_bytes(
    shape: ModelShape, layer: Layer, sizes: EffectiveSizes, settings: ContextSettings
) -> int:
    """Two tensors per layer, keys and values, of one row per cell.

    Without flash attention the values are stored transposed, all layers as wide as the widest.
    """
    if not layer.key_width:
        return 0
    value_width = layer.value_width
    if not settings.flash_attention:
        value_width = max(other.value_width for other in shape.layers)
    cells = sizes.num_sliding_cells if layer.is_sliding else sizes.num_cells
    row = _row_bytes(settings.kv_type_k, layer.key_width)
    row += _row_bytes(settings.kv_type_v, value_width)
    return cells * sizes.num_streams * row


def _row_bytes(type_name: str, width: int) -> int:
    kind: GgmlType = TYPES_BY_NAME[type_name]
    return kind.row_bytes(width)


def _compute_bytes(shape: ModelShape, sizes: EffectiveSizes, settings: ContextSettings) -> int:
    """Peak of the graph's temporaries: the largest of its phases.

    Source: fitted to ggml-alloc's results; what remains is its first-fit fragmentation.
    """
    token = 4 * sizes.num_ubatch
    mask = _mask_bytes(shape, sizes, settings)
    beside = _around_output_bytes(shape, settings, token, mask)
    phases = [4 * shape.num_vocab * sizes.num_outputs + beside]
    if shape.ffn_width:
        phases.append(mask + _ffn_bytes(shape, token))
    if shape.num_experts:
        used = shape.num_experts_used
        wide = 3 * used * shape.expert_width + 4 * shape.width
        deep = used * (2 * shape.width + shape.expert_width) + 3 * shape.width
        phases.append(mask + token * max(wide, deep))
    if shape.num_heads:
        phases.append(mask + _attention_bytes(shape, sizes, settings))
    if shape.has_recurrent:
        rows = max(1, settings.max_sequences) * (shape.state_width + 2 * shape.conv_width)
        phases.append(token * (6 * shape.inner_width + shape.width) + 4 * rows)
    return max(phases)


def _ffn_bytes(shape: ModelShape, token: int) -> int:
    """The projections that live at the same time, and the layer's input and residual."""
    if not shape.is_gated:
        return token * (2 * shape.ffn_width + 2 * shape.width)
    inputs = 3 if shape.architecture == "phi3" else 4
    return token * (3 * shape.ffn_width + inputs * shape.width)


def _around_output_bytes(
    shape: ModelShape, settings: ContextSettings, token: int, mask: int
) -> int:
    """What lies beside the logits: the last layer's activations, and holes too small for them.

    The allocator takes the first hole that fits, so the mask's place is lost where it is smaller
    than an activation and the shapes of the layer leave no other.
    """
    activation = token * shape.width
    is_quantized = settings.kv_type_k not in ("f16", "bf16", "f32")
    if shape.architecture == "phi3":
        if is_quantized and shape.layers[0].key_width < shape.width:
            return 2 * activation + mask
        return 4 * activation + mask if mask < activation else 2 * activation
    narrow = 0 < shape.num_heads * shape.key_head < shape.width and not shape.has_sliding
    if narrow and settings.flash_attention and not is_quantized and mask < activation:
        return 3 * activation + token * shape.ffn_width + mask
    return (3 if shape.has_recurrent or shape.is_mla else 2) * activation


def _mask_bytes(shape: ModelShape, sizes: EffectiveSizes, settings: ContextSettings) -> int:
    full = any(layer.key_width and not layer.is_sliding for layer in shape.layers)
    cells = sizes.num_cells * full + sizes.num_sliding_cells * shape.has_sliding
    return (2 if settings.flash_attention else 4) * sizes.num_ubatch * cells


def _attention_bytes(shape: ModelShape, sizes: EffectiveSizes, settings: ContextSettings) -> int:
    token = 4 * sizes.num_ubatch
    scores = 0 if settings.flash_attention else token * shape.num_heads * sizes.num_cells
    if shape.is_mla:
        per_head = shape.key_head + 2 * shape.value_head + 32
        return scores + token * shape.num_heads * per_head
    queries = shape.num_heads * shape.key_head
    keys = max(layer.key_width for layer in shape.layers)
    inputs = 2 if settings.flash_attention else 3
    return scores + token * (inputs * shape.width + 2 * queries + keys)


def _work_bytes(shape: ModelShape, sizes: EffectiveSizes, settings: ContextSettings) -> int:
    """ggml's work buffer: activations converted for the kernels; probabilities without FA."""
    cells = sizes.num_cells * sizes.num_streams * _CELL_BYTES
    if settings.flash_attention:
        wide = max(shape.ffn_width, shape.width)
        return cells + int(1.15 * wide * sizes.num_ubatch)
    return cells + 2 * shape.num_heads * sizes.num_cells * sizes.num_ubatch


def _vocab_bytes(header: GgufHeader) -> int:
    """About 370 bytes per token of a BPE vocabulary, 160 of a SentencePiece one (measured)."""
    tokens = header.array_length("tokenizer.ggml.tokens") or 0
    return tokens * (160 if header.text("tokenizer.ggml.model") == "llama" else 370)
