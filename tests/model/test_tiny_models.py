"""The tiny models behave like real ones, so that tests built on them mean something."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llama_cpp import Llama

from tests.model.tiny_models import WRITERS, write_all

TEXT = "Hello, the innkeeper smiled.\nOnce upon a time: ünïcode 🐉 漢字"


@pytest.fixture(params=list(WRITERS), scope="module")
def model(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Iterator[Llama]:
    path = str(tiny_models[request.param])
    llama = Llama(path, n_ctx=256, n_threads=1, n_threads_batch=1, verbose=False)
    yield llama
    llama.close()


def greedy(model: Llama, prompt: str, count: int) -> list[int]:
    model.reset()
    model.eval(model.tokenize(prompt.encode(), special=True))
    tokens: list[int] = []
    for _ in range(count):
        logits = np.ctypeslib.as_array(model._ctx.get_logits(), shape=(model.n_vocab(),))
        tokens.append(int(logits.argmax()))
        model.eval(tokens[-1:])
    return tokens


def test_text_survives_tokenizing_and_back(model: Llama) -> None:
    tokens = model.tokenize(TEXT.encode(), add_bos=False)
    assert model.detokenize(tokens).decode().removeprefix(" ") == TEXT
    assert len(tokens) < 0.8 * len(TEXT.encode())


def test_chat_markers_are_single_tokens(model: Llama) -> None:
    assert len(model.tokenize(b"<|im_end|>", add_bos=False, special=True)) <= 2  # a space may lead


def test_first_words_change_what_follows(model: Llama) -> None:
    rest = " upon a time there was a little girl who named the dragon"
    first, second = (greedy(model, start + rest, 20) for start in ("Once", "Two"))
    assert first != second
    assert len(set(first)) > 8
    assert not {model.token_eos(), model.token_bos()} & {*first, *second}


def test_same_seed_gives_same_file(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    again = write_all(tmp_path)
    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in tiny_models.items()
    }
