"""Guidance: what is said equals what two separate evaluations give, and nobody waits for ever."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from innkeeper.backends.fake import BOS, NUM_BYTES
from innkeeper.core import SamplingParams
from innkeeper.errors import PromptTooLongError
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]


def submit(bench: Bench, prompt: str = "hello", **fields: Any) -> int:
    fields = {"guidance_scale": 1.7, "negative_prompt": "bad words", "max_tokens": 30, **fields}
    return bench.submit(prompt, **fields)


def log_softmax(logits: Any) -> Any:
    values = logits.astype(np.float64)
    return values - np.log(np.exp(values - values.max()).sum()) - values.max()


def expected(bench: Bench, prompt: str, negative: str, scale: float, count: int) -> str:
    """Greedy, from the definition: two whole evaluations for each token."""
    reply: list[int] = []
    for _ in range(count):
        with_prompt = bench.runner._logits([BOS, *prompt.encode(), *reply])
        against = bench.runner._logits([BOS, *negative.encode(), *reply])
        away = log_softmax(against)
        guided = away + scale * (log_softmax(with_prompt) - away)
        reply.append(int(np.argmax(guided)))
        assert reply[-1] < NUM_BYTES
    return bytes(reply).decode()


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.7, -1.0])
def test_guided_reply_equals_two_separate_evaluations(make_bench: MakeBench, scale: float) -> None:
    bench = make_bench()
    request = submit(bench, guidance_scale=scale)
    bench.run()
    assert bench.text(request) == expected(bench, "hello", "bad words", scale, 30)
    if scale <= 0:
        plain = bench.submit("hello", max_tokens=30)
        bench.run()
        assert bench.text(plain) != bench.text(request)


def test_guidance_beside_other_requests_changes_neither(make_bench: MakeBench) -> None:
    bench = make_bench(max_sequences=4)
    alone = bench.submit("other", max_tokens=40)
    bench.run()
    request, other = submit(bench, "x" * 300), bench.submit("other", max_tokens=40)
    bench.run()
    assert bench.text(other) == bench.text(alone)
    assert bench.text(request) == expected(bench, "x" * 300, "bad words", 1.7, 30)


def test_choices_cancels_and_a_full_pool_come_to_an_end(make_bench: MakeBench) -> None:
    bench = make_bench(num_pool=512, max_sequences=4, max_kept=1)
    prompt = "a long prompt " * 8
    ids = [submit(bench, prompt, n=2, max_tokens=None, sampling=SamplingParams(seed=1))]
    ids += [submit(bench, prompt[i:], max_tokens=40, negative_prompt=prompt) for i in range(3)]
    for step in range(12):
        bench.engine.step()
        if step == 8:
            bench.cancel(ids[1])
    bench.run()
    assert bench.finished(ids[1]).reason == "cancelled"
    for request in (ids[0], ids[2], ids[3]):
        assert bench.finished(request).reason in ("length", "stop")
    assert bench.finished(ids[0], 1).reason in ("length", "stop")
    assert bench.engine.stats().num_running == 0


def test_the_negative_prompt_is_cached(make_bench: MakeBench) -> None:
    bench = make_bench()
    submit(bench, "hello", negative_prompt="n" * 100)
    bench.run()
    before = bench.runner.num_evaluated
    submit(bench, "hello", negative_prompt="n" * 100, max_tokens=2)
    bench.run()
    assert bench.runner.num_evaluated - before < 20


def test_banned_phrases_work_under_guidance(make_bench: MakeBench) -> None:
    bench = make_bench()
    plain = submit(bench)
    bench.run()
    banned = bench.text(plain)[4:9]
    request = submit(bench, banned=(banned,))
    bench.run()
    assert banned not in bench.text(request) and len(bench.text(request)) == 30


def test_one_sequence_is_too_few(make_bench: MakeBench) -> None:
    bench = make_bench(max_sequences=1)
    request = submit(bench)
    bench.run()
    assert bench.failed(request).error.field == "guidance_scale"


def test_a_negative_prompt_beyond_the_context_is_refused(make_bench: MakeBench) -> None:
    bench = make_bench()
    with pytest.raises(PromptTooLongError, match="negative prompt has 601 tokens"):
        submit(bench, negative_prompt="n" * 600)
