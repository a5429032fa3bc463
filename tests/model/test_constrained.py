"""Replies of real models that obey: whole words and broken characters as tokens, not bytes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from innkeeper.core import Constraint, SamplingParams
from tests.model.test_llama_backend import Session
from tests.unit.engine.schemas import problem, random_schema


@pytest.fixture(scope="module")
def open_session(tiny_models: dict[str, Path]) -> Iterator[Callable[[str], Session]]:
    sessions: dict[str, Session] = {}

    def open_one(name: str) -> Session:
        if name not in sessions:
            sessions[name] = Session(tiny_models[name])
        return sessions[name]

    yield open_one
    for session in sessions.values():
        session.runner.close()


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_finished_replies_validate(open_session: Callable[[str], Session], name: str) -> None:
    session = open_session(name)
    schemas = [random_schema(Random(seed)) for seed in range(16)]
    ids = [
        session.submit(
            "The innkeeper's ledger as JSON: ",
            max_tokens=300,
            constraint=Constraint("json_schema", json.dumps(schema)),
            sampling=SamplingParams(temperature=1.5, seed=seed),
        )
        for seed, schema in enumerate(schemas)
    ]
    session.run()
    num_finished = 0
    for request_id, schema in zip(ids, schemas, strict=True):
        if session.finished(request_id).reason == "stop":
            num_finished += 1
            assert problem(json.loads(session.text(request_id)), schema) is None
    assert num_finished >= 0.8 * len(schemas)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_choice_beside_sampling_steps(open_session: Callable[[str], Session], name: str) -> None:
    session = open_session(name)
    sampling = SamplingParams(temperature=2.0, top_k=3, min_p=0.5, repetition_penalty=1.3, seed=5)
    constraint = Constraint("choice", '["the dragon", "a naïve 🐉", "night"]')
    request_id = session.submit("Who?", constraint=constraint, sampling=sampling)
    session.run()
    assert session.text(request_id) in json.loads(constraint.text)
    assert session.finished(request_id).reason == "stop"
