"""Writes a random model of a real model's shape, for measuring speed and memory.

    python benchmarks/model_shapes.py llama-1b OUT.gguf [--quant q4_k_m|q4_k|q6_k] [--seed N]

Every matrix is random quantized blocks, made as bytes: the kernels, sizes and memory traffic are
those of the real model; the words are not. English text gets three or four letters per token, and
the tokens that end a reply are practically never sampled.
"""

import argparse
import itertools
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
from gguf import GGMLQuantizationType as QuantType
from numpy.typing import NDArray

CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
COMMON_WORDS = """
the of and to in is you that it he was for on are with as his they be at one have this from or had
by hot but some what there we can out other were all your when up use word how said an each she
which do their time if will way about many then them would write like so these her long make thing
see him two has look more day could go come did my sound no most number who over know water than
call first people may down side been now find any new work part take get place made live where
after back little only round man year came show every good me give our under name very through
just form great think say help low line before turn cause same mean differ move right boy old too
does tell sentence set three want air well also play small end put home read hand large spell add
even land here must big high such follow act why ask men change went light kind off need house
picture try us again animal point mother world near build self earth father head stand own page
should country found answer school grow study still learn plant cover food sun four between state
keep eye never last let thought city tree cross farm hard start might story saw far sea draw left
late run while press close night real life few north open seem together next white children begin
got walk example ease paper group always music those both mark often letter until mile river car
feet care second book carry took science eat room friend began idea fish mountain stop once base
hear horse cut sure watch color face wood main enough plain girl usual young ready above ever red
list though feel talk bird soon body dog family direct pose leave song measure door product black
short numeral class wind question happen complete ship area half rock order fire south problem
piece told knew pass since top whole king space heard best hour better true during hundred five
remember step early hold west ground interest reach fast verb sing listen six table travel less
morning ten simple several vowel toward war lay against pattern slow center love person money
serve appear road map rain rule govern pull cold notice voice unit power town fine certain fly
fall lead cry dark machine note wait plan figure star box noun field rest correct able pound done
beauty drive stood contain front teach week final gave green quick develop ocean warm free minute
strong special mind behind clear tail produce fact street inch multiply nothing course stay wheel
full force blue object decide surface deep moon island foot system busy test record boat common
gold possible plane stead dry wonder laugh thousand ago ran check game shape equate miss brought
heat snow tire bring yes distant fill east paint language among innkeeper tavern smile dragon
character user assistant
""".split()

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_CHUNK_BLOCKS = 1 << 16


@dataclass(frozen=True)
class Shape:
    """The sizes in a Llama's ``config.json``."""

    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    ffn_width: int
    num_vocab: int = 32000
    num_ctx_train: int = 32768

    @property
    def head_size(self) -> int:
        return self.width // self.num_heads


SHAPES = {
    "llama-1b": Shape(2048, 22, 32, 4, 5632),  # TinyLlama 1.1B
    "llama-160m": Shape(768, 12, 12, 4, 3072),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor to write: ``columns`` x ``rows`` weights of standard deviation ``spread``."""

    name: str
    columns: int
    rows: int
    quant: QuantType
    spread: float
    silent_rows: tuple[int, ...] = ()
    """Rows of zeros: tokens whose logit is 0, far below the best."""

    @property
    def num_bytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.quant]
        return int(self.columns * self.rows // block * size)


def vocabulary(num_vocab: int) -> tuple[list[str], list[int], list[float]]:
    """Texts, types and scores of a SentencePiece vocabulary of ``num_vocab`` pieces.

    Control and byte tokens, letters, every beginning of the common words with and without a space
    (so that merging left to right finds the words), then all letter pairs and triples.
    """
    tokens = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    types = [_UNKNOWN] + [_CONTROL] * 4
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types += [_BYTE] * 256
    num_special = len(tokens)
    pieces = dict.fromkeys(itertools.islice(_pieces(), 3 * num_vocab))
    tokens += itertools.islice(pieces, num_vocab - num_special)
    types += [_NORMAL] * (num_vocab - num_special)
    scores = [0.0] * num_special + [-float(rank) for rank in range(num_vocab - num_special)]
    return tokens, types, scores


def _pieces() -> Iterator[str]:
    yield "▁"
    yield from string.ascii_letters + string.digits + string.punctuation
    yield from "äöüÄÖÜßéèêàâçñóíáúœ“”…—"
    words = [*("▁" + word for word in COMMON_WORDS), *COMMON_WORDS]
    words += ["▁" + word.capitalize() for word in COMMON_WORDS]
    longest = max(map(len, words))
    for length in range(2, longest + 1):
        yield from (word[:length] for word in words if len(word) >= length)
    letters = string.ascii_lowercase
    for pair in itertools.product(letters, letters):
        yield "".join(pair)
    for pair in itertools.product(letters, letters):
        yield "▁" + "".join(pair)
    for triple in itertools.product(letters, letters, letters):
        yield "".join(triple)
    for triple in itertools.product(letters, letters, letters):
        yield "▁" + "".join(triple)


def tensors(shape: Shape, quant: str, silent: tuple[int, ...]) -> list[Tensor]:
    """Every tensor of the model, in the order llama.cpp's converter writes them."""
    small = QuantType.Q6_K if quant == "q6_k" else QuantType.Q4_K
    fine = QuantType.Q4_K if quant == "q4_k" else QuantType.Q6_K
    width, kv_width = shape.width, shape.num_kv_heads * shape.head_size
    found = [
        Tensor("token_embd.weight", width, shape.num_vocab, small, 0.5),
        Tensor("output_norm.weight", width, 1, QuantType.F32, 1.0),
        Tensor("output.weight", width, shape.num_vocab, QuantType.Q6_K, 2.5 / width**0.5, silent),
    ]
    narrow, wide = 1 / width**0.5, 1 / shape.ffn_width**0.5
    for layer in range(shape.num_layers):
        prefix = f"blk.{layer}."
        more_bits = fine if layer % 3 == 0 else small  # Q4_K_M spends Q6_K on some layers only
        found += [
            Tensor(prefix + "attn_norm.weight", width, 1, QuantType.F32, 1.0),
            Tensor(prefix + "attn_q.weight", width, width, small, narrow),
            Tensor(prefix + "attn_k.weight", width, kv_width, small, narrow),
            Tensor(prefix + "attn_v.weight", width, kv_width, more_bits, narrow),
            Tensor(prefix + "attn_output.weight", width, width, small, narrow),
            Tensor(prefix + "ffn_norm.weight", width, 1, QuantType.F32, 1.0),
            Tensor(prefix + "ffn_gate.weight", width, shape.ffn_width, small, narrow),
            Tensor(prefix + "ffn_up.weight", width, shape.ffn_width, small, narrow),
            Tensor(prefix + "ffn_down.weight", shape.ffn_width, width, more_bits, wide),
        ]
    return found


def _half(value: float) -> NDArray[np.uint8]:
    return np.array([value], dtype=np.float16).view(np.uint8)


def _random_blocks(
    quant: QuantType, count: int, spread: float, random: np.random.Generator
) -> NDArray[np.uint8]:
    """``count`` blocks with random quants and the scales that give them deviation ``spread``.

    Returns: (count, block bytes). Source: block_q4_K and block_q6_K in ggml-common.h.
    """
    num_bytes = int(gguf.GGML_QUANT_SIZES[quant][1])
    words = random.integers(0, 2**64, size=-(-count * num_bytes // 8), dtype=np.uint64)
    blocks = words.view(np.uint8)[: count * num_bytes].reshape(count, num_bytes)
    if quant == QuantType.Q4_K:  # weight = d * 8 * quant - dmin * 8, quant uniform in 0..15
        scale = spread / (8 * 4.61)
        blocks[:, 0:2], blocks[:, 2:4] = _half(scale), _half(7.5 * scale)
        blocks[:, 4:12], blocks[:, 12:16] = 0x08, 0x88
    else:  # weight = d * 8 * (quant - 32), quant uniform in 0..63
        blocks[:, 192:208], blocks[:, 208:210] = 8, _half(spread / (8 * 18.47))
    return blocks


def _write_tensor(out: BinaryIO, tensor: Tensor, random: np.random.Generator) -> None:
    if tensor.quant == QuantType.F32:
        out.write(np.full(tensor.columns, tensor.spread, dtype=np.float32).tobytes())
        return
    per_row = tensor.columns // gguf.GGML_QUANT_SIZES[tensor.quant][0]
    rows_at_once = max(1, _CHUNK_BLOCKS // per_row)
    for first in range(0, tensor.rows, rows_at_once):
        rows = min(rows_at_once, tensor.rows - first)
        blocks = _random_blocks(tensor.quant, rows * per_row, tensor.spread, random)
        for row in tensor.silent_rows:
            if first <= row < first + rows:
                blocks[(row - first) * per_row : (row - first + 1) * per_row] = 0
        out.write(blocks.tobytes())


def _metadata(writer: gguf.GGUFWriter, name: str, shape: Shape) -> tuple[int, ...]:
    """Adds everything but tensors. Returns the ids of control tokens."""
    tokens, types, scores = vocabulary(shape.num_vocab)
    writer.add_name(f"random {name}")
    writer.add_context_length(shape.num_ctx_train)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.num_layers)
    writer.add_feed_forward_length(shape.ffn_width)
    writer.add_head_count(shape.num_heads)
    writer.add_head_count_kv(shape.num_kv_heads)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.num_vocab)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHATML_TEMPLATE)
    return tuple(i for i, kind in enumerate(types) if kind in (_CONTROL, _UNKNOWN))


def write(name: str, path: Path, *, quant: str = "q4_k_m", seed: int = 0) -> Path:
    """Writes the model ``name`` of ``SHAPES`` to ``path``; a second or so for each 500 MB."""
    shape = SHAPES[name]
    writer = gguf.GGUFWriter(path, "llama")
    silent = _metadata(writer, name, shape)
    writer.add_file_type({"q4_k_m": 15, "q4_k": 14, "q6_k": 18}[quant])
    todo = tensors(shape, quant, silent)
    for tensor in todo:
        dims = [tensor.columns] if tensor.rows == 1 else [tensor.rows, tensor.columns]
        kind = np.dtype(np.float16)  # any float: raw_dtype decides
        writer.add_tensor_info(tensor.name, dims, kind, tensor.num_bytes, raw_dtype=tensor.quant)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    random = np.random.Generator(np.random.SFC64(seed))
    with path.open("r+b") as out:
        out.seek(-(-out.seek(0, 2) // 32) * 32)
        for tensor in todo:
            _write_tensor(out, tensor, random)
            out.write(bytes(-tensor.num_bytes % 32))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quant", choices=("q4_k_m", "q4_k", "q6_k"), default="q4_k_m")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.perf_counter()
    write(args.shape, args.out, quant=args.quant, seed=args.seed)
    took = time.perf_counter() - start
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB in {took:.1f} s")


if __name__ == "__main__":
    main()
