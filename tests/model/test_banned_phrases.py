"""Banned phrases over real caches: plain, sliding-window, and one that cannot go back."""

from pathlib import Path

import pytest

from innkeeper.core import SamplingParams
from innkeeper.core.frames import Failed
from tests.model.test_llama_backend import Session

PROMPT = "Once upon a time the innkeeper said to the little girl that the dragon "


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "mixtral"])
def test_phrases_never_show_and_the_cache_stays_right(
    tiny_models: dict[str, Path], name: str
) -> None:
    session = Session(tiny_models[name])
    plain = session.submit(PROMPT, max_tokens=100, logprobs=0)
    session.run()
    text = session.text(plain)
    phrases = tuple(text[i : i + 6] for i in range(0, len(text) - 6, 11))
    other = session.submit(PROMPT, max_tokens=100, logprobs=0, banned=phrases)
    session.run()
    shown = session.text(other)
    assert session.finished(other).timings.predicted_n == 100
    assert not any(phrase.lower() in shown.lower() for phrase in phrases)

    # The same tokens read at once by a fresh cache give the same next ones.
    fresh = Session(tiny_models[name])
    prompt = fresh.runner.tokenizer.encode(PROMPT, add_special=True, parse_special=True)
    for session_read in (session, fresh):
        session_read.submit([*prompt, *session.tokens(other)], max_tokens=1, logprobs=0)
        session_read.run()
    assert session.tokens(other + 1) == fresh.tokens(1)
    session.runner.close()
    fresh.runner.close()


def test_recurrent_model_refuses_phrases(tiny_mamba: Path) -> None:
    session = Session(tiny_mamba)
    session.submit(PROMPT, banned=("shivers",), sampling=SamplingParams(temperature=0))
    session.run()
    (failed,) = [frame for frame in session.frames if isinstance(frame, Failed)]
    assert failed.error.field == "banned_strings"
    session.runner.close()
