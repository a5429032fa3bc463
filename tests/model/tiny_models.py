"""Tiny random-weight GGUFs that llama.cpp loads and runs, a few hundred kB each.

They say nothing sensible, but they are real models: every architecture's own graph, a real
tokenizer (SentencePiece with byte tokens, or byte-level BPE), a chat template, and logits that
depend on the whole context. The same name and seed give the same file.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QuantType
from numpy.typing import NDArray

NUM_CTX_TRAIN = 2048
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
WORDS = (
    "the and you that was for are with his they this have from one had word but not what all were "
    "when your can said there use each which she how their will other about out many then them "
    "these some her would make like him into time has look two more write see number way could "
    "people than first water been call who its now find long down day did get come made may part "
    "once upon little girl named tavern keeper innkeeper smiled door night fire dragon story user "
    "assistant system hello world name chapter"
).split()
SYMBOLS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"-()*/<>|_#&%+=\n"

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6


@dataclass(frozen=True)
class Vocabulary:
    """What ``tokenizer.ggml.*`` says. Types are llama.cpp's; scores are for SentencePiece only."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    bos_id: int
    eos_id: int

    def rare_ids(self) -> list[int]:
        """Tokens that random weights should hardly ever choose: the ones that end a reply."""
        return [i for i, kind in enumerate(self.types) if kind in (_CONTROL, _UNKNOWN)]

    def byte_ids(self) -> list[int]:
        """Tokens that are one raw byte: chosen now and then, so that broken UTF-8 is met."""
        return [i for i, kind in enumerate(self.types) if kind == _BYTE]


def _prefixes(words: Iterable[str]) -> list[str]:
    """Every prefix of two letters or more, shortest first: merging left to right finds words."""
    seen = {word[:end] for word in words for end in range(2, len(word) + 1)}
    return sorted(seen, key=lambda piece: (len(piece), piece))


def spm_vocabulary() -> Vocabulary:
    """A SentencePiece vocabulary with all 256 byte tokens, as Llama 2 has one."""
    tokens = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    types = [_UNKNOWN, _CONTROL, _CONTROL, _CONTROL, _CONTROL]
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [_BYTE] * 256
    pieces = ["▁", *SYMBOLS.replace("\n", ""), *_prefixes("▁" + word for word in WORDS)]
    tokens += pieces
    types += [_NORMAL] * len(pieces)
    scores = [0.0] * (len(tokens) - len(pieces)) + [-float(rank) for rank in range(len(pieces))]
    return Vocabulary("llama", "default", tokens, types, scores, None, bos_id=1, eos_id=2)


def bpe_vocabulary(pre: str) -> Vocabulary:
    """A byte-level BPE vocabulary, as GPT-2 and Qwen have one; ``pre`` is its splitter."""
    letter_of = gpt2_letters()
    tokens = [letter_of[byte] for byte in range(256)]
    space = letter_of[ord(" ")]
    merges = []
    for piece in _prefixes(space + word for word in WORDS):
        merges.append(f"{piece[:-1]} {piece[-1]}")
        tokens.append(piece)
    types = [_NORMAL] * len(tokens) + [_CONTROL] * 3
    tokens += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    first = len(tokens) - 3
    return Vocabulary(
        "gpt2", pre, tokens, types, None, merges, bos_id=first, eos_id=first + 2 * (pre != "gpt-2")
    )


def gpt2_letters() -> dict[int, str]:
    """Byte -> the printable letter that stands for it in a byte-level BPE vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in letters)
    return letters | {byte: chr(256 + rank) for rank, byte in enumerate(others)}


class _Weights:
    """Collects one model's random tensors and writes the file."""

    def __init__(self, path: Path, arch: str, vocabulary: Vocabulary, seed: int) -> None:
        self.path = path
        self.vocabulary = vocabulary
        self.random = np.random.default_rng(seed)
        self.writer = gguf.GGUFWriter(path, arch)
        self.quant = QuantType.F32

    def matrix(self, name: str, *shape: int, gain: float = 1.0) -> None:
        """A (rows, ..., columns) matrix that keeps the size of what it multiplies, x ``gain``."""
        values = self.random.standard_normal(shape) * (gain / shape[-1] ** 0.5)
        self.tensor(name, values, self.quant)

    def vector(self, name: str, length: int, mean: float = 1.0, spread: float = 0.1) -> None:
        self.tensor(name, mean + spread * self.random.standard_normal(length), QuantType.F32)

    def embedding(self, name: str, width: int, gain: float, *, is_output: bool) -> None:
        """One row per token; output rows of control tokens are near zero, of bytes halved."""
        rows = self.random.standard_normal((len(self.vocabulary.tokens), width)) * gain
        if is_output:
            rows[self.vocabulary.rare_ids()] *= 0.01
            rows[self.vocabulary.byte_ids()] *= 0.6
        self.tensor(name, rows, self.quant)

    def tensor(self, name: str, values: NDArray[np.float64], quant: QuantType) -> None:
        data = np.ascontiguousarray(values, dtype=np.float32)
        if quant == QuantType.F16:
            self.writer.add_tensor(name, data.astype(np.float16))
        elif quant == QuantType.F32:
            self.writer.add_tensor(name, data)
        else:
            packed = gguf.quants.quantize(data, quant)
            self.writer.add_tensor(name, packed, raw_dtype=quant)

    def write(self) -> Path:
        _add_vocabulary(self.writer, self.vocabulary)
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.path


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_unk_token_id(0)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.bos_id)
    writer.add_eos_token_id(vocabulary.eos_id)
    writer.add_add_bos_token(vocabulary.model == "llama")
    writer.add_chat_template(CHATML_TEMPLATE)


@dataclass(frozen=True)
class _Shape:
    """Sizes of a tiny transformer; heads of 32, so that a quantized KV cache works too."""

    width: int = 64
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int = 32
    ffn_width: int = 128


def _add_shape(
    writer: gguf.GGUFWriter, name: str, shape: _Shape, *, attention_layer: int | None = None
) -> None:
    """``attention_layer``: the only one; None = all are."""
    layers = range(shape.num_layers)
    key_heads = [shape.num_kv_heads * (layer == attention_layer) for layer in layers]
    writer.add_name(name)
    writer.add_context_length(NUM_CTX_TRAIN)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.num_layers)
    writer.add_feed_forward_length(shape.ffn_width)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_kv_heads if attention_layer is None else key_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)


def _add_attention(weights: _Weights, prefix: str, shape: _Shape, *, sharpness: float) -> None:
    """``sharpness`` > 1 lets single earlier tokens win the attention, as trained models do."""
    query, key = shape.num_heads * shape.head_size, shape.num_kv_heads * shape.head_size
    weights.vector(prefix + "attn_norm.weight", shape.width)
    weights.matrix(prefix + "attn_q.weight", query, shape.width, gain=sharpness)
    weights.matrix(prefix + "attn_k.weight", key, shape.width, gain=sharpness)
    weights.matrix(prefix + "attn_v.weight", key, shape.width, gain=1.5)
    weights.matrix(prefix + "attn_output.weight", shape.width, query, gain=1.5)
    weights.vector(prefix + "ffn_norm.weight", shape.width)


def _add_ffn(weights: _Weights, prefix: str, shape: _Shape) -> None:
    weights.matrix(prefix + "ffn_gate.weight", shape.ffn_width, shape.width, gain=1.5)
    weights.matrix(prefix + "ffn_up.weight", shape.ffn_width, shape.width, gain=1.5)
    weights.matrix(prefix + "ffn_down.weight", shape.width, shape.ffn_width)


def write_llama(
    path: Path, *, seed: int = 1, quant: QuantType = QuantType.F32, architecture: str = "llama"
) -> Path:
    """A Llama, or a cousin with the same tensors, with a SentencePiece vocabulary; ``quant`` of its
    matrices."""
    weights, shape = _Weights(path, architecture, spm_vocabulary(), seed), _Shape()
    weights.quant = quant
    _add_shape(weights.writer, "Tiny Llama", shape)
    weights.embedding("token_embd.weight", shape.width, 1.0, is_output=False)
    for layer in range(shape.num_layers):
        prefix = f"blk.{layer}."
        _add_attention(weights, prefix, shape, sharpness=1.5)
        _add_ffn(weights, prefix, shape)
    weights.vector("output_norm.weight", shape.width)
    weights.embedding("output.weight", shape.width, 0.4, is_output=True)
    return weights.write()


def write_qwen2(path: Path, *, seed: int = 2) -> Path:
    """A Qwen2: biased attention, byte-level BPE vocabulary, no BOS."""
    weights = _Weights(path, "qwen2", bpe_vocabulary("qwen2"), seed)
    shape = _Shape(width=128, num_layers=2, ffn_width=192)  # this graph wants width = all heads
    _add_shape(weights.writer, "Tiny Qwen2", shape)
    weights.embedding("token_embd.weight", shape.width, 1.0, is_output=False)
    for layer in range(shape.num_layers):
        prefix = f"blk.{layer}."
        _add_attention(weights, prefix, shape, sharpness=1.5)
        for part, heads in (("q", 4), ("k", 2), ("v", 2)):
            weights.vector(f"{prefix}attn_{part}.bias", heads * shape.head_size, 0.0)
        _add_ffn(weights, prefix, shape)
    weights.vector("output_norm.weight", shape.width)
    weights.embedding("output.weight", shape.width, 0.4, is_output=True)
    return weights.write()


def write_gemma3(path: Path, *, seed: int = 3, sliding_window: int = 64) -> Path:
    """A Gemma 3: tied embeddings, five layers of ``sliding_window`` tokens, then a full one."""
    weights, shape = _Weights(path, "gemma3", spm_vocabulary(), seed), _Shape(num_layers=6)
    _add_shape(weights.writer, "Tiny Gemma 3", shape)
    weights.writer.add_sliding_window(sliding_window)
    weights.writer.add_add_space_prefix(False)
    # Gemma multiplies embeddings by sqrt(width); kept small, so that a token does not predict
    # itself through the tied output, and made up for in the last norm.
    weights.embedding("token_embd.weight", shape.width, 0.05, is_output=True)
    for layer in range(shape.num_layers):
        prefix = f"blk.{layer}."
        _add_attention(weights, prefix, shape, sharpness=1.0)
        for part in ("q", "k"):
            weights.vector(f"{prefix}attn_{part}_norm.weight", shape.head_size, 1.3)
        weights.vector(prefix + "post_attention_norm.weight", shape.width)
        weights.vector(prefix + "post_ffw_norm.weight", shape.width)
        _add_ffn(weights, prefix, shape)
    weights.vector("output_norm.weight", shape.width, 8.0)
    return weights.write()


def write_mixtral(path: Path, *, seed: int = 4, num_experts: int = 4, num_used: int = 2) -> Path:
    """A Mixtral: a Llama whose feed-forward parts are ``num_experts`` experts."""
    weights = _Weights(path, "llama", spm_vocabulary(), seed)
    shape = _Shape(num_layers=3, ffn_width=64)
    _add_shape(weights.writer, "Tiny Mixtral", shape)
    weights.writer.add_expert_count(num_experts)
    weights.writer.add_expert_used_count(num_used)
    weights.embedding("token_embd.weight", shape.width, 1.0, is_output=False)
    for layer in range(shape.num_layers):
        prefix = f"blk.{layer}."
        _add_attention(weights, prefix, shape, sharpness=1.5)
        router = weights.random.standard_normal((num_experts, shape.width)) / 4
        weights.tensor(prefix + "ffn_gate_inp.weight", router, QuantType.F32)
        wide, narrow = (num_experts, shape.ffn_width, shape.width), (shape.width, shape.ffn_width)
        weights.matrix(prefix + "ffn_gate_exps.weight", *wide, gain=1.5)
        weights.matrix(prefix + "ffn_up_exps.weight", *wide, gain=1.5)
        weights.matrix(prefix + "ffn_down_exps.weight", num_experts, *narrow)
    weights.vector("output_norm.weight", shape.width)
    weights.embedding("output.weight", shape.width, 0.4, is_output=True)
    return weights.write()


def write_mamba(path: Path, *, seed: int = 5) -> Path:
    """A Mamba: recurrent, no attention, byte-level BPE vocabulary."""
    weights = _Weights(path, "mamba", bpe_vocabulary("gpt-2"), seed)
    weights.quant = QuantType.F32
    width, inner, state, rank = 64, 128, 16, 8
    num_layers = 4
    writer = weights.writer
    writer.add_name("Tiny Mamba")
    writer.add_context_length(NUM_CTX_TRAIN)
    writer.add_embedding_length(width)
    writer.add_block_count(num_layers)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    _add_mamba_shape(writer, inner, state, rank)
    writer.add_layer_norm_rms_eps(1e-5)
    weights.embedding("token_embd.weight", width, 1.0, is_output=False)
    for layer in range(num_layers):
        _add_mamba_layer(weights, f"blk.{layer}.", width, inner, state, rank)
    weights.vector("output_norm.weight", width)
    weights.embedding("output.weight", width, 0.4, is_output=True)
    return weights.write()


def _add_mamba_shape(writer: gguf.GGUFWriter, inner: int, state: int, rank: int) -> None:
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)


def _add_mamba_layer(
    weights: _Weights, prefix: str, width: int, inner: int, state: int, rank: int
) -> None:
    weights.vector(prefix + "attn_norm.weight", width)
    weights.matrix(prefix + "ssm_in.weight", 2 * inner, width, gain=2.0)
    filters = weights.random.standard_normal((inner, 4)) * 0.7
    weights.tensor(prefix + "ssm_conv1d.weight", filters, QuantType.F32)
    weights.vector(prefix + "ssm_conv1d.bias", inner, 0.0)
    weights.matrix(prefix + "ssm_x.weight", rank + 2 * state, inner, gain=2.0)
    step = weights.random.standard_normal((inner, rank)) / rank**0.5
    weights.tensor(prefix + "ssm_dt.weight", step, QuantType.F32)
    weights.vector(prefix + "ssm_dt.bias", inner, -3.0, 1.0)
    decay = -np.tile(np.arange(1.0, state + 1), (inner, 1)) / 4
    weights.tensor(prefix + "ssm_a", decay, QuantType.F32)
    weights.vector(prefix + "ssm_d", inner, 0.5)
    weights.matrix(prefix + "ssm_out.weight", width, inner, gain=1.5)


def write_jamba(path: Path, *, seed: int = 8) -> Path:
    """A Jamba: Mamba layers around one of attention without positions."""
    weights, shape = (
        _Weights(path, "jamba", bpe_vocabulary("gpt-2"), seed),
        _Shape(width=128, num_layers=3),
    )
    inner, state, rank = 2 * shape.width, 16, 8
    _add_shape(weights.writer, "Tiny Jamba", shape, attention_layer=1)
    _add_mamba_shape(weights.writer, inner, state, rank)
    weights.embedding("token_embd.weight", shape.width, 1.0, is_output=False)
    for layer in range(shape.num_layers):
        prefix = f"blk.{layer}."
        if layer == 1:
            _add_attention(weights, prefix, shape, sharpness=1.5)
        else:
            _add_mamba_layer(weights, prefix, shape.width, inner, state, rank)
            for part, length in (("dt", rank), ("b", state), ("c", state)):
                weights.vector(f"{prefix}ssm_{part}_norm.weight", length)
            weights.vector(prefix + "ffn_norm.weight", shape.width)
        _add_ffn(weights, prefix, shape)
    weights.vector("output_norm.weight", shape.width)
    weights.embedding("output.weight", shape.width, 0.4, is_output=True)
    return weights.write()


def write_lfm2(path: Path, *, seed: int = 9) -> Path:
    """An LFM2: short convolutions around one layer of attention."""
    weights = _Weights(path, "lfm2", bpe_vocabulary("qwen2"), seed)
    shape = _Shape(width=128, num_layers=3)  # this graph wants width = all heads
    kernel = 3
    _add_shape(weights.writer, "Tiny LFM2", shape, attention_layer=1)
    weights.writer.add_shortconv_l_cache(kernel)
    weights.embedding("token_embd.weight", shape.width, 1.0, is_output=False)
    for layer in range(shape.num_layers):
        prefix = f"blk.{layer}."
        if layer == 1:
            _add_attention(weights, prefix, shape, sharpness=1.5)
            for part in ("q", "k"):
                weights.vector(f"{prefix}attn_{part}_norm.weight", shape.head_size, 1.3)
        else:
            weights.vector(prefix + "attn_norm.weight", shape.width)
            filters = weights.random.standard_normal((shape.width, kernel)) * 0.7
            weights.tensor(prefix + "shortconv.conv.weight", filters, QuantType.F32)
            weights.matrix(prefix + "shortconv.in_proj.weight", 3 * shape.width, shape.width)
            weights.matrix(prefix + "shortconv.out_proj.weight", shape.width, shape.width, gain=1.5)
            weights.vector(prefix + "ffn_norm.weight", shape.width)
        _add_ffn(weights, prefix, shape)
    weights.vector("token_embd_norm.weight", shape.width)
    weights.embedding("output.weight", shape.width, 0.4, is_output=True)
    return weights.write()


def write_llama_q8_0(path: Path) -> Path:
    """The tiny Llama with Q8_0 matrices."""
    return write_llama(path, quant=QuantType.Q8_0)


def write_bert(path: Path, *, seed: int = 6, is_ranker: bool = False) -> Path:
    """A BERT that makes vectors of texts, or, as a reranker, one number of a query and a text."""
    words = [f"▁{letter}" for letter in SYMBOLS.strip()] + [f"▁{word}" for word in WORDS]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(words)]
    tokens += [letter for letter in SYMBOLS.strip() if letter.islower()]
    types = [_CONTROL, _UNKNOWN, _CONTROL, _CONTROL] + [_NORMAL] * (len(tokens) - 4)
    vocabulary = Vocabulary("bert", "default", tokens, types, None, None, bos_id=2, eos_id=3)
    weights, width = _Weights(path, "bert", vocabulary, seed), 64
    writer = weights.writer
    _add_shape(writer, "Tiny BERT", _Shape(width, 2, 2, 2, 32, 128))
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK if is_ranker else gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    weights.embedding("token_embd.weight", width, 1.0, is_output=False)
    weights.matrix("token_types.weight", 2, width, gain=0.1)
    weights.matrix("position_embd.weight", NUM_CTX_TRAIN, width, gain=0.1)
    _add_norm(weights, "token_embd_norm", width)
    for layer in range(2):
        prefix = f"blk.{layer}."
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            weights.matrix(f"{prefix}{part}.weight", width, width, gain=1.5)
            weights.vector(f"{prefix}{part}.bias", width, 0.0)
        weights.matrix(prefix + "ffn_up.weight", 128, width, gain=1.5)
        weights.vector(prefix + "ffn_up.bias", 128, 0.0)
        weights.matrix(prefix + "ffn_down.weight", width, 128)
        weights.vector(prefix + "ffn_down.bias", width, 0.0)
        _add_norm(weights, prefix + "attn_output_norm", width)
        _add_norm(weights, prefix + "layer_output_norm", width)
    if is_ranker:
        weights.matrix("cls.weight", width, width)
        weights.vector("cls.bias", width, 0.0)
        weights.matrix("cls.output.weight", 1, width)
        weights.vector("cls.output.bias", 1, 0.0)
    return weights.write()


def _add_norm(weights: _Weights, name: str, width: int) -> None:
    weights.vector(f"{name}.weight", width)
    weights.vector(f"{name}.bias", width, 0.0)


def write_llama_lora(path: Path, *, seed: int = 7, width: int = 64) -> Path:
    """An adapter of rank 4 for the tiny Llama's feed-forward outputs."""
    writer, random, shape = gguf.GGUFWriter(path, "llama"), np.random.default_rng(seed), _Shape()
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    for layer in range(shape.num_layers):
        name = f"blk.{layer}.ffn_down.weight"
        down = random.standard_normal((4, shape.ffn_width)) / shape.ffn_width**0.5
        up = random.standard_normal((width, 4))
        writer.add_tensor(f"{name}.lora_a", down.astype(np.float32))
        writer.add_tensor(f"{name}.lora_b", up.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


WRITERS: dict[str, Callable[[Path], Path]] = {
    "llama": write_llama,
    "llama-q8_0": write_llama_q8_0,
    "qwen2": write_qwen2,
    "gemma3": write_gemma3,
    "mixtral": write_mixtral,
    "mamba": write_mamba,
    "jamba": write_jamba,
    "lfm2": write_lfm2,
}


def write_all(folder: Path, names: Sequence[str] = tuple(WRITERS)) -> dict[str, Path]:
    """Writes ``tiny-NAME.gguf`` for each of ``names`` into ``folder``."""
    return {name: WRITERS[name](folder / f"tiny-{name}.gguf") for name in names}
