"""What decides on a token: healed prompts, probabilities after sampling, and its trace."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from innkeeper.core import Constraint, SamplingParams
from innkeeper.core.frames import Delta, Probabilities, Probe, ProbedStep
from innkeeper.engine.loop import Prepared
from innkeeper.engine.vocabulary import Vocabulary
from tests.unit.engine.conftest import Bench

MakeBench = Callable[..., Bench]


class Words:
    """A tokenizer of a few words, one token each."""

    words = (b"", b"The ", b"The", b" house", b"hou", b"se", b"h", b"<end>")

    def encode(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return []

    def decode(self, tokens: object) -> str:
        return ""

    def piece(self, token_id: int, *, special: bool) -> bytes:
        return b"" if token_id == 7 and not special else self.words[token_id]


def test_tokens_that_begin_with_a_text() -> None:
    vocabulary = Vocabulary(Words(), 8, (7,))
    assert vocabulary.beginning_with(b"h").tolist() == [4, 6]
    assert vocabulary.beginning_with(b"The").tolist() == [1, 2]
    assert vocabulary.beginning_with(b"<").tolist() == []


def test_a_healed_reply_goes_on_without_the_prompts_last_token(bench: Bench) -> None:
    """The fake backend's tokens are bytes, so the same token comes again, and shows nothing."""
    plain = bench.submit("hello", max_tokens=20)
    healed = bench.submit("hello", max_tokens=21, heals_token=True)
    bench.run()
    assert bench.text(healed) == bench.text(plain)
    assert bench.finished(healed).timings.predicted_n == 21


def test_healing_and_a_constraint_do_not_go_together(bench: Bench) -> None:
    request = bench.submit("hello", heals_token=True, constraint=Constraint("regex", "a+"))
    bench.run()
    assert bench.failed(request).error.field == "token_healing"


@pytest.mark.parametrize("greedy", [True, False])
def test_log_probabilities_after_sampling_are_of_what_was_drawn_from(
    bench: Bench, greedy: bool
) -> None:
    sampling = SamplingParams(temperature=0 if greedy else 1, top_k=3, seed=1)
    after = bench.submit(sampling=sampling, max_tokens=5, logprobs=5, logprobs_after=True)
    before = bench.submit(sampling=sampling, max_tokens=5, logprobs=5)
    bench.run()

    def entries(request: int) -> list[tuple[float, list[float]]]:
        found = [f for f in bench.frames if isinstance(f, Delta) and f.id == request]
        return [(e.logprob, [lp for _, _, lp in e.top]) for f in found for e in f.logprobs]

    assert bench.text(after) == bench.text(before)
    for (logprob, top), (first, wide) in zip(entries(after), entries(before), strict=True):
        assert len(top) == (1 if greedy else 3) and len(wide) == 5
        assert sum(map(math.exp, top)) == pytest.approx(1, abs=1e-5)
        assert logprob in top and logprob > first


def trace(bench: Bench, prompt: str, sampling: SamplingParams) -> tuple[ProbedStep, ...]:
    bench.submit(prompt, sampling=sampling, max_tokens=1)
    prepared = bench.engine.inbox.get()
    assert isinstance(prepared, Prepared)
    probe = Probe(prepared.id, prepared.request, top=4, traces=True)
    bench.engine.inbox.put(prepared._replace(probe=probe))
    bench.run()
    (found,) = [f for f in bench.frames if isinstance(f, Probabilities) and f.id == prepared.id]
    return found.steps


def test_a_trace_names_every_step_with_what_it_leaves(bench: Bench) -> None:
    sampling = SamplingParams(
        top_k=5, min_p=0.3, temperature=2, ban_eos=True, logit_bias={ord("z"): -np.inf}
    )
    steps = trace(bench, "hello", sampling)
    assert [step.name for step in steps] == [
        *("model", "constraint", "logit_bias", "top_k", "min_p", "temperature")
    ]
    left = [step.num_left for step in steps]
    assert left[3] == 5 and left == sorted(left, reverse=True) and left[4] < 5
    assert all(len(step.tokens) <= 4 for step in steps)
    hot, cold = steps[5].tokens, steps[4].tokens
    assert hot[0][0] == cold[0][0] and hot[0][2] < cold[0][2]
    last = trace(bench, "hello", SamplingParams(temperature=0))[-1]
    assert (last.name, last.num_left, last.tokens[0][2]) == ("greedy", 1, 1.0)
