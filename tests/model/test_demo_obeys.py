"""The built-in model held to forms and bans: many schemas, many phrases."""

import itertools
import json
from collections.abc import Iterator
from random import Random

import pytest

from innkeeper.core import Constraint, SamplingParams
from innkeeper.demo import MODEL
from tests.model.test_llama_backend import Session
from tests.unit.engine.schemas import problem, random_schema

NUM_SCHEMAS, NUM_REPLIES, NUM_PHRASES = 200, 1000, 500
PROMPT = (
    "<|im_start|>system\nMara keeps the inn.<|im_end|>\n"
    "<|im_start|>user\nTell me about guest {}.<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(MODEL, idle_refresh=False)
    yield session
    session.runner.close()


def test_replies_to_200_schemas_at_high_temperature_validate(session: Session) -> None:
    schemas = [random_schema(Random(1000 + seed)) for seed in range(NUM_SCHEMAS)]
    ids = [
        session.submit(
            PROMPT.format("in JSON"),
            max_tokens=300,
            constraint=Constraint("json_schema", json.dumps(schema)),
            sampling=SamplingParams(temperature=1.5, seed=seed),
        )
        for seed, schema in enumerate(schemas)
    ]
    session.run()
    finished = [
        (session.text(request), schema)
        for request, schema in zip(ids, schemas, strict=True)
        if session.finished(request).reason == "stop"
    ]
    problems = [problem(json.loads(text), schema) for text, schema in finished]
    assert [each for each in problems if each is not None] == []
    assert len(finished) >= 0.8 * NUM_SCHEMAS


def test_500_banned_phrases_never_show_in_1000_replies(session: Session) -> None:
    """The phrases are what the model likes to say: pairs of words of its own replies."""
    hot = [SamplingParams(temperature=1.2, seed=seed) for seed in range(NUM_REPLIES)]
    plain = [session.submit(PROMPT.format(i), max_tokens=40, sampling=hot[i]) for i in range(150)]
    session.run()
    words = [session.text(request).split() for request in plain]
    pairs = (f"{a} {b}" for reply in words for a, b in itertools.pairwise(reply))
    phrases = tuple(dict.fromkeys(pair.lower() for pair in pairs if len(pair) > 4))[:NUM_PHRASES]
    assert len(phrases) == NUM_PHRASES

    def num_shown(requests: list[int]) -> int:
        texts = [session.text(request).lower() for request in requests]
        return sum(any(phrase in text for phrase in phrases) for text in texts)

    assert num_shown(plain) > 100, "they would show"
    session.frames.clear()
    banned = [
        session.submit(PROMPT.format(i), max_tokens=20, sampling=hot[i], banned=phrases)
        for i in range(NUM_REPLIES)
    ]
    session.run()
    assert num_shown(banned) == 0
    assert sum(bool(session.text(request)) for request in banned) > 0.9 * NUM_REPLIES
