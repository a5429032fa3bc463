"""Two hundred schemas at a high temperature: every finished reply validates."""

import json
from random import Random

import pytest

from innkeeper.core import Constraint, SamplingParams
from tests.unit.engine.conftest import Bench
from tests.unit.engine.schemas import problem, random_schema


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_finished_replies_validate(bench: Bench, first: int) -> None:
    schemas = [random_schema(Random(seed)) for seed in range(first, first + 25)]
    ids = [
        bench.submit(
            max_tokens=400,
            constraint=Constraint("json_schema", json.dumps(schema)),
            sampling=SamplingParams(temperature=1.5, seed=seed),
        )
        for seed, schema in enumerate(schemas)
    ]
    bench.run()
    num_finished = 0
    for request_id, schema in zip(ids, schemas, strict=True):
        if bench.finished(request_id).reason == "stop":
            num_finished += 1
            assert problem(json.loads(bench.text(request_id)), schema) is None
    assert num_finished >= 20


def test_validator_sees_what_is_wrong() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 3}, "b": {"enum": ["x"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert problem({"a": 3, "b": "x"}, schema) is None
    for broken in ({}, {"a": 2}, {"a": "3"}, {"a": 3, "b": "y"}, {"a": 3, "c": 1}, [], True):
        assert problem(broken, schema) is not None
