"""Headers that parse but lie about sizes: an answer or a typed error, and soon."""

import random

import pytest

from innkeeper.errors import InnkeeperError
from innkeeper.formats.gguf_header import Value
from innkeeper.planner.estimate import ContextSettings, estimate
from innkeeper.planner.plan import plan
from innkeeper.planner.shape import MEASURED_ARCHITECTURES
from innkeeper.planner.wishes import Wishes
from tests.unit.planner.headers import header, renamed
from tests.unit.planner.test_plan import MACHINE, with_gpu

KEYS = (
    *("block_count", "embedding_length", "feed_forward_length", "attention.head_count"),
    *("attention.head_count_kv", "attention.key_length", "attention.value_length", "vocab_size"),
    *("attention.key_length_mla", "attention.value_length_mla", "attention.sliding_window"),
    *("attention.sliding_window_pattern", "expert_count", "expert_used_count", "context_length"),
    *("ssm.conv_kernel", "ssm.inner_size", "ssm.state_size", "full_attention_interval"),
    *("nextn_predict_layers", "attention.shared_kv_layers", "shortconv.l_cache"),
)
VALUES: tuple[Value, ...] = (
    *(0, 1, 2, 3, 7, 64, 1023, 1024, 2**31 - 1, 2**31, 2**63, -1),
    *(1.5, True, "text", (), (1, 2), (0,), (2**40,), (1.0, "x", True)),
)


@pytest.mark.parametrize("architecture", [*sorted(MEASURED_ARCHITECTURES), "jamba", "brand-new"])
def test_lying_sizes_give_an_answer_or_a_typed_error(architecture: str) -> None:
    rng = random.Random(architecture)
    answers = errors = 0
    for _ in range(60):
        sizes = renamed(architecture)
        for key in rng.sample(KEYS, rng.choice((1, 2, 4))):
            sizes[f"{architecture}.{key}"] = rng.choice(VALUES)
        settings = ContextSettings(
            num_pool=rng.choice((1, 512, 100_000)),
            max_sequences=rng.choice((1, 8)),
            kv_unified=rng.random() < 0.5,
            flash_attention=rng.random() < 0.5,
            num_gpu_layers=rng.choice((0, 1, -1, 999)),
        )
        try:
            found = estimate(header(sizes), settings)
            plan(header(sizes), rng.choice((MACHINE, with_gpu(1 << 32))), Wishes())
        except InnkeeperError:
            errors += 1
            continue
        answers += 1
        assert found.total_bytes >= 0
        assert found.weights_bytes > 0
    assert answers > 10
    assert errors > 3
