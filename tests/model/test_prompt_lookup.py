"""Guesses over real caches change nothing but the number of steps."""

from pathlib import Path

import pytest

from innkeeper.core import Constraint, SamplingParams
from tests.model.test_llama_backend import Session

PROMPT = "the red dragon and the old keeper and the red dragon and the old keeper and the red "


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3", "mamba"])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_reply_is_the_same_with_guesses(
    tiny_models: dict[str, Path], name: str, temperature: float
) -> None:
    replies, num_drafted = [], 0
    for lookup in (0, 6):
        session = Session(tiny_models[name])
        request_id = session.submit(
            PROMPT * 2,
            max_tokens=80,
            lookup=lookup,
            sampling=SamplingParams(temperature=temperature, seed=3, top_k=3),
            constraint=Constraint("regex", "((the|red) )+"),  # so that the text repeats itself
            logprobs=0,
        )
        session.run()
        replies.append(session.tokens(request_id))
        num_drafted = session.finished(request_id).timings.draft_n
        session.engine.cache.check()
        session.runner.close()
    assert replies[0] == replies[1]
    if name == "mamba":
        assert num_drafted == 0
    elif name in ("llama", "qwen2"):
        assert num_drafted > 0
