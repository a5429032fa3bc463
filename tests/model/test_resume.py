"""A chat goes on after its engine was ended, killed or replaced, without being read again."""

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from innkeeper.core import EngineConfig, GenerateRequest, SamplingParams, Timings
from innkeeper.core.frames import Delta, Finished
from innkeeper.enginelink import EngineLink

STORY = "Mira poured the ale. 'What brings you here, traveller?' she asked. " * 12
MORE = " The rain had stopped by then, and nobody in the inn spoke for a while."
NAMES = ("llama", "llama-q8_0", "qwen2", "gemma3", "mixtral", "mamba", "jamba", "lfm2")


def config(path: Path, folder: Path, **fields: Any) -> EngineConfig:
    values: dict[str, Any] = {
        "num_ctx": 2048,
        "num_pool": 4096,
        "num_threads": 1,
        "kv_type_k": "f32",
        "kv_type_v": "f32",
        "cache_folder": str(folder),
        "disk_cache_bytes": 1 << 30,
    }
    return EngineConfig(backend="llama_cpp", path=str(path), name="x", **{**values, **fields})


async def reply(link: EngineLink, prompt: str | Sequence[int]) -> tuple[list[int], Timings]:
    """Greedy tokens, and what they cost."""
    request = GenerateRequest(
        prompt=prompt if isinstance(prompt, str) else tuple(prompt),
        max_tokens=8,
        sampling=SamplingParams(temperature=0, ban_eos=True),
        logprobs=0,
    )
    tokens, timings = [], None
    async for event in link.stream(request):
        if isinstance(event, Delta):
            tokens += [entry.token_id for entry in event.logprobs]
        if isinstance(event, Finished):
            timings = event.timings
    assert timings is not None
    return tokens, timings


async def chat(link: EngineLink) -> list[int]:
    """Reads the story, and says something; the tokens of both."""
    start = await link.tokenize(STORY)
    said, _ = await reply(link, start)
    return [*start, *said]


async def next_turn(path: Path, folder: Path, so_far: Sequence[int], **fields: Any) -> Timings:
    """Goes on in a new engine, and holds its reply against one that reads everything."""
    link = await EngineLink.start(config(path, folder, **fields))
    prompt = [*so_far, *await link.tokenize(MORE, add_special=False)]
    tokens, timings = await reply(link, prompt)
    await link.close()
    fresh = await EngineLink.start(config(path, folder, disk_cache_bytes=0, **fields))
    expected, cold = await reply(fresh, prompt)
    await fresh.close()
    assert cold.cache_n == 0
    assert tokens == expected
    return timings


@pytest.mark.parametrize("name", NAMES)
async def test_a_new_engine_goes_on_where_the_last_one_ended(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    link = await EngineLink.start(config(tiny_models[name], tmp_path))
    so_far = await chat(link)
    await link.close()
    timings = await next_turn(tiny_models[name], tmp_path, so_far)
    assert timings.restored_n == timings.cache_n >= len(so_far) - 1
    assert timings.prompt_n < 100


async def test_a_killed_engine_loses_only_what_it_had_no_time_to_write(
    tiny_llama: Path, tmp_path: Path
) -> None:
    link = await EngineLink.start(config(tiny_llama, tmp_path))
    so_far = await chat(link)
    while not list(tmp_path.glob("*.kv")):  # written in idle time
        await link.tokenize("x")
    os.kill(link.process_id, signal.SIGKILL)
    await link.lost
    await link.close()
    timings = await next_turn(tiny_llama, tmp_path, so_far)
    assert timings.restored_n >= len(so_far) - 1


async def test_a_changed_model_starts_afresh(tiny_llama: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    shutil.copyfile(tiny_llama, model)
    link = await EngineLink.start(config(model, tmp_path / "cache"))
    so_far = await chat(link)
    await link.close()
    shutil.copyfile(tiny_llama, model)  # the same bytes, but who could know
    timings = await next_turn(model, tmp_path / "cache", so_far)
    assert timings.cache_n == timings.restored_n == 0


@pytest.mark.parametrize(
    "fields", [{"kv_type_k": "f16"}, {"kv_type_v": "f16"}, {"flash_attention": True}]
)
async def test_other_settings_start_afresh(
    tiny_llama: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    link = await EngineLink.start(config(tiny_llama, tmp_path))
    so_far = await chat(link)
    await link.close()
    timings = await next_turn(tiny_llama, tmp_path, so_far, **fields)
    assert timings.cache_n == timings.restored_n == 0


async def test_a_chat_that_left_the_pool_comes_back_from_memory(
    tiny_llama: Path, tmp_path: Path
) -> None:
    small = {"num_ctx": 1024, "num_pool": 1024, "disk_cache_bytes": 0}
    link = await EngineLink.start(config(tiny_llama, tmp_path, ram_cache_bytes=1 << 28, **small))
    so_far = await chat(link)
    await reply(link, "And now something else. " + STORY)
    again, timings = await reply(link, so_far)
    await link.close()
    fresh = await EngineLink.start(config(tiny_llama, tmp_path, **small))
    expected, _ = await reply(fresh, so_far)
    await fresh.close()
    assert timings.cache_n == len(so_far) - 1
    assert timings.restored_n > 500  # the two begin alike
    assert again == expected


@pytest.mark.parametrize("name", ["gemma3", "mamba", "jamba", "lfm2"])
async def test_models_that_cannot_be_cut_regenerate_and_edit_after_a_restart(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    fields = {"ram_cache_bytes": 1 << 26}
    link = await EngineLink.start(config(tiny_models[name], tmp_path, **fields))
    prompt = await link.tokenize(STORY + "\nGuest: Is there a room?\nMira:")
    said, _ = await reply(link, prompt)
    await link.close()

    other = await EngineLink.start(config(tiny_models[name], tmp_path, **fields))
    again, timings = await reply(other, prompt)
    await other.close()
    assert again == said
    assert timings.cache_n == len(prompt) - 1
    assert timings.restored_n == len(prompt) - 1
    edited = await next_turn(tiny_models[name], tmp_path, prompt[:-10], **fields)
    assert edited.cache_n >= len(prompt) - 150
    assert edited.restored_n > 0


@pytest.mark.parametrize("name", ["llama", "gemma3", "mamba", "jamba"])
async def test_a_chat_that_was_saved_by_name_goes_on_in_another_engine(
    name: str, tiny_models: dict[str, Path], tmp_path: Path
) -> None:
    here = config(tiny_models[name], tmp_path, disk_cache_bytes=0)
    link = await EngineLink.start(here)
    so_far = await chat(link)
    saved = await link.change_slot("save", 0, "inn")
    prompt = [*so_far, *await link.tokenize(MORE, add_special=False)]
    expected, _ = await reply(link, prompt)
    assert (await link.change_slot("erase", 0)).num_tokens >= len(prompt)
    await link.close()

    other = await EngineLink.start(here)
    read = await other.change_slot("restore", 0, "inn")
    assert (read.num_tokens, read.num_bytes) == (saved.num_tokens, saved.num_bytes)
    tokens, timings = await reply(other, prompt)
    await other.close()
    assert tokens == expected
    assert timings.cache_n >= len(so_far) - 1
