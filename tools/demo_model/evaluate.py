"""Compare the exported model with the trained one: `python -m tools.demo_model.evaluate DIR`.

Checks that llama.cpp splits text as the tokenizer does, that its logits in float32 are torch's, and
how many characters a token covers. What the model remembers is measured by `benchmarks/recall.py`.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from llama_cpp import GGML_TYPE_F32, Llama
from tokenizers import Tokenizer

from tools.demo_model.chat import plain_text
from tools.demo_model.documents import BOS, document
from tools.demo_model.export import export, load_model
from tools.demo_model.model import DemoModel
from tools.demo_model.tokenizer import load_tokenizer

SEED = 7
ODD_TEXTS = (
    "Crème brûlée \u2014 \u201cnaïve\u201d 😀 don't I'LL we've 12,345.67\n\n\n  x\t y  ",
    "été 北京 ~~~ ### Response:\n\n hello   ",
    "A's 3rd Ünïcode  \n  \n z",
)
ENGLISH_CHAT = (
    "Good evening! I have been walking since this morning, and I am quite tired. Do you still "
    "have a room for the night? My brother told me that the soup here is very good, and that you "
    "know every story about the old mill. I can pay you tomorrow, when the mail coach brings my "
    "letters."
)


def held_out(num_texts: int) -> list[str]:
    return [
        plain_text(document(SEED, index, 1000, held_out=True))[len(BOS) :]
        for index in range(num_texts)
    ]


def differently_split(tokenizer: Tokenizer, llm: Any, texts: list[str]) -> int:
    """How many texts llama.cpp splits into other tokens."""
    return sum(
        tokenizer.encode(text).ids != llm.tokenize(text.encode(), add_bos=False, special=True)
        for text in texts
    )


def largest_difference(model: DemoModel, llm: Any, texts: list[str]) -> float:
    """The largest difference of any logit at any token of the texts."""
    largest = 0.0
    for text in texts:
        ids = llm.tokenize(text.encode(), add_bos=True, special=True)[: llm.n_ctx()]
        llm.reset()
        llm.eval(ids)
        with torch.no_grad():
            expected = model(torch.tensor([ids]))[0].numpy()
        largest = max(largest, float(np.abs(llm.scores[: len(ids)] - expected).max()))
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what train.py wrote")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, path = load_model(args.folder), args.folder / "tokenizer.json"
    tokenizer, texts = load_tokenizer(path), held_out(200)
    with TemporaryDirectory() as folder:
        exact = Path(folder) / "f32.gguf"
        export(model, path, exact, "f32")
        llm = Llama(
            str(exact), n_ctx=1536, n_gpu_layers=0, n_threads=1, n_threads_batch=1,
            logits_all=True, type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, verbose=False,
        )  # fmt: skip
        print("parameters:", sum(p.numel() for p in model.parameters()))
        print("texts split differently:", differently_split(tokenizer, llm, [*texts, *ODD_TEXTS]))
        print(f"largest difference of a logit: {largest_difference(model, llm, texts[:8]):.6f}")
    tokens = sum(len(tokenizer.encode(text).ids) for text in texts)
    print(f"characters a token, held-out text: {sum(map(len, texts)) / tokens:.2f}")
    print(
        f"characters a token, plain English chat: "
        f"{len(ENGLISH_CHAT) / len(tokenizer.encode(ENGLISH_CHAT).ids):.2f}"
    )


if __name__ == "__main__":
    main()
