"""An engine over the fake backend, run step by step in this process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from innkeeper.backends.fake import FakeRunner, load
from innkeeper.core import EngineConfig, GenerateRequest, SamplingParams
from innkeeper.core.frames import Cancel, Delta, Failed, Finished, Probabilities, Probe
from innkeeper.engine.loop import Engine, Prepared
from innkeeper.engine.prompt import next_speaker, tokenize_negative, tokenize_prompt
from innkeeper.engine.tiers import Tiers


@dataclass
class Bench:
    """Submits requests and collects what comes back."""

    engine: Engine
    runner: FakeRunner
    frames: list[Any] = field(default_factory=list)
    next_id: int = 0

    def submit(self, prompt: str = "hello", **fields: Any) -> int:
        sampling = fields.pop("sampling", SamplingParams(temperature=0))
        request = GenerateRequest(prompt=prompt, sampling=sampling, **fields)
        tokens, cut = tokenize_prompt(request, self.runner.tokenizer, self.runner.facts)
        self.next_id += 1
        negative = tokenize_negative(request, tokens, self.runner.tokenizer, self.runner.facts)
        speaker = next_speaker(tokens, self.runner.tokenizer)
        self.engine.inbox.put(Prepared(self.next_id, request, tokens, cut, None, negative, speaker))
        return self.next_id

    def probe(self, prompt: str, **fields: Any) -> Probabilities:
        request = GenerateRequest(prompt=prompt, sampling=SamplingParams(temperature=0))
        tokens, _ = tokenize_prompt(request, self.runner.tokenizer, self.runner.facts)
        self.next_id += 1
        probe = Probe(self.next_id, request, **fields)
        self.engine.inbox.put(Prepared(self.next_id, request, tokens, 0, probe))
        self.run()
        found = next(f for f in self.frames if isinstance(f, Probabilities))
        return found

    def cancel(self, request_id: int | None) -> None:
        self.engine.inbox.put(Cancel(request_id))

    def run(self, max_steps: int = 10_000) -> None:
        for _ in range(max_steps):
            if not self.engine.step() and self.engine.inbox.empty():
                return
        raise AssertionError("the engine did not come to rest")

    def run_until_finished(self, request_id: int) -> None:
        """As ``run``, but for the idle work behind it."""
        while not any(isinstance(f, Finished) and f.id == request_id for f in self.frames):
            self.engine.step()

    def text(self, request_id: int, index: int = 0) -> str:
        return "".join(
            f.text
            for f in self.frames
            if isinstance(f, Delta) and (f.id, f.index) == (request_id, index)
        )

    def finished(self, request_id: int, index: int = 0) -> Finished:
        ends = [
            f
            for f in self.frames
            if isinstance(f, Finished) and (f.id, f.index) == (request_id, index)
        ]
        assert len(ends) == 1, f"{len(ends)} endings for request {request_id}.{index}"
        return ends[0]

    def failed(self, request_id: int) -> Failed:
        ends = [f for f in self.frames if isinstance(f, Failed) and f.id == request_id]
        assert len(ends) == 1, f"{len(ends)} failures for request {request_id}"
        return ends[0]


def pool_config(num_cells: int, num_ids: int, **fields: Any) -> EngineConfig:
    """Of a fake model whose pool is no larger than its context."""
    return EngineConfig(
        backend="fake",
        path="",
        name="fake",
        num_ctx=num_cells,
        num_pool=num_cells,
        max_sequences=num_ids,
        **{"max_kept": 0, **fields},
    )


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    def make(
        *, options: dict[str, str] | None = None, idle_seconds: float = 0, **fields: Any
    ) -> Bench:
        config = EngineConfig(
            backend="fake",
            path="",
            name="fake",
            **{"num_ctx": 512, "num_pool": 1024, **fields},
            options=options or {},
        )
        runner = load(config, lambda fraction: None)
        tiers = Tiers(runner, config.ram_cache_bytes, None)
        engine = Engine(
            runner,
            lambda frames: bench.frames.extend(frames),
            kv_reuse=config.kv_reuse,
            idle_seconds=idle_seconds,
            tiers=tiers,
        )
        bench = Bench(engine, runner)
        return bench

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
