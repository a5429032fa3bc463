"""A byte-level BPE tokenizer, trained on the generated text.

Pre-tokenization splits digits one by one and words as GPT-2 does; llama.cpp knows this as the
pre-tokenizer "smollm".
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.demo_model.chat import REPLY, REPLY_END, VALUE, VALUE_END, plain_text
from tools.demo_model.documents import BOS, EOS, IM_END, IM_START, document

SPECIAL = (EOS, BOS, IM_START, IM_END)
CONTEXT_WEIGHT, REPLY_WEIGHT, VALUE_WEIGHT = 0.15, 1.0, 4.0
"""What a token adds to the loss: text the model only reads, what it says, and the value of an
answer."""


def byte_level(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(vocab_size: int, num_documents: int, seed: int) -> Tokenizer:
    tokenizer = byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = (plain_text(document(seed, index, 600)) for index in range(num_documents))
    tokenizer.train_from_iterator((_without_special(text) for text in texts), trainer)
    return tokenizer


def _without_special(text: str) -> str:
    for token in SPECIAL:
        text = text.replace(token, "\n")
    return text


def load_tokenizer(path: Path) -> Tokenizer:
    return Tokenizer.from_file(str(path))


def vocabulary(path: Path) -> tuple[list[str], list[str]]:
    """Tokens in the order of their ids, and merges as llama.cpp wants them ("left right")."""
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return tokens, [
        merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]
    ]


def _char_weights(marked: str) -> tuple[str, NDArray[np.float32]]:
    """The text without its marks and a loss weight for every character of it."""
    weights = np.empty(len(marked), np.float32)
    chars: list[str] = []
    in_reply = in_value = False
    for char in marked:
        if char in (VALUE, VALUE_END):
            in_value = char == VALUE
        elif char in (REPLY, REPLY_END):
            in_reply = char == REPLY
        else:
            weights[len(chars)] = (
                VALUE_WEIGHT if in_value else REPLY_WEIGHT if in_reply else CONTEXT_WEIGHT
            )
            chars.append(char)
    return "".join(chars), weights[: len(chars)]


def encode_documents(
    tokenizer: Tokenizer, marked: list[str]
) -> list[tuple[NDArray[np.uint16], NDArray[np.float32]]]:
    """Token ids and loss weights of marked documents; a token has the weight of its first visible
    character."""
    pairs = [_char_weights(text) for text in marked]
    encodings = tokenizer.encode_batch([text for text, _ in pairs])
    out = []
    for encoding, (_, weights) in zip(encodings, pairs, strict=True):
        starts = np.array([start for start, _ in encoding.offsets])
        out.append(
            (np.array(encoding.ids, np.uint16), weights[np.minimum(starts, len(weights) - 1)])
        )
    return out
