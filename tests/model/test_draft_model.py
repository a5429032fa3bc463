"""A draft model over real caches changes nothing but the number of steps."""

import dataclasses
from pathlib import Path

import msgspec
import pytest

from innkeeper.core import EngineConfig, SamplingParams
from innkeeper.errors import EngineLoadError
from innkeeper.planner.hardware import probe
from innkeeper.planner.plan import RESERVE_RAM_BYTES
from innkeeper.serving.fit import Need, check_model, choose_sizes
from tests.model.test_llama_backend import Session

PROMPT = "Once upon a time the innkeeper said to the little girl that the dragon "


@pytest.mark.parametrize(("large", "small"), [("llama", "llama-q8_0"), ("qwen2", "qwen2")])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_reply_is_the_same_with_a_draft_model(
    tiny_models: dict[str, Path], large: str, small: str, temperature: float
) -> None:
    session = Session(tiny_models[large], draft_path=str(tiny_models[small]))
    replies, num_drafted = [], []
    for draft_max in (0, None, 2):
        request_id = session.submit(
            PROMPT,
            max_tokens=80,
            draft_max=draft_max,
            sampling=SamplingParams(temperature=temperature, seed=3, top_k=3),
            logprobs=0,
            kv_reuse="exact",
        )
        session.run()
        replies.append(session.tokens(request_id))
        num_drafted.append(session.finished(request_id).timings.draft_n)
        session.engine.cache.check()
    session.runner.close()
    assert replies[0] == replies[1] == replies[2]
    assert num_drafted[0] == 0 < num_drafted[1] + num_drafted[2]


@pytest.mark.parametrize("small", ["qwen2", "mamba"])
def test_another_vocabulary_is_refused_in_words(tiny_models: dict[str, Path], small: str) -> None:
    with pytest.raises(EngineLoadError) as caught:
        Session(tiny_models["llama"], draft_path=str(tiny_models[small]))
    assert caught.value.field == "draft_model"
    assert f"{tiny_models[small].name} does not fit tiny-llama" in caught.value.message


def test_its_memory_is_planned(tiny_models: dict[str, Path]) -> None:
    path = str(tiny_models["llama"])
    config = EngineConfig(backend="llama_cpp", path=path, name="x", num_ctx=512, num_pool=512)
    both = msgspec.structs.replace(config, draft_path=path)
    assert check_model(both).ram_bytes > check_model(config).ram_bytes

    machine = dataclasses.replace(probe(), gpus=(), limit_bytes=None)
    need = check_model(both)
    open_config = msgspec.structs.replace(config, num_ctx=0, num_pool=0)
    open_both = msgspec.structs.replace(both, num_ctx=0, num_pool=0)
    tight = dataclasses.replace(
        machine, available_ram_bytes=RESERVE_RAM_BYTES + need.ram_bytes + need.weights_bytes
    )
    alone = choose_sizes(open_config, Need(), tight).num_pool
    assert choose_sizes(open_both, Need(), tight).num_pool <= alone
