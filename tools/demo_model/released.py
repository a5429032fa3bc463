"""Weights and tokenizer out of an exported file, for a stage of training that begins with it."""

from pathlib import Path

import gguf
import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from tools.demo_model.model import SHARPNESS_KEY
from tools.demo_model.tokenizer import SPECIAL, byte_level

FIRST_SHARPNESS = 1.5
"""Of the files before their header told it."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a GGUF of `export` by name, in float32; the output matrix as it was before
    export sharpened it."""
    reader = gguf.GGUFReader(path)
    weights = {
        tensor.name: torch.from_numpy(
            gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy()
        ).float()
        for tensor in reader.tensors
    }
    told = reader.get_field(SHARPNESS_KEY)
    weights["output.weight"] /= told.contents() if told else FIRST_SHARPNESS
    return weights


def read_tokenizer(path: Path) -> Tokenizer:
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = byte_level(models.BPE(vocab=vocab, merges=merges))
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer
