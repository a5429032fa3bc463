"""llama-server's slots: a chat is saved under a name, restored, and erased."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from innkeeper.serving import EngineDefaults
from tests.unit.api.gateway import Gateway

STORY = "Mira poured the ale. " * 20


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def kept(tmp_path: Path, cache: Path) -> Iterator[Gateway]:
    defaults = EngineDefaults(backend="fake", num_ctx=2048, cache_folder=str(cache))
    with Gateway(tmp_path, defaults=defaults) as running:
        yield running


@pytest.fixture
def own(kept: Gateway) -> Iterator[httpx.Client]:
    with kept.client() as client:
        yield client


def read(client: httpx.Client, prompt: str) -> dict[str, Any]:
    """What reading ``prompt`` cost."""
    body = {"prompt": prompt, "max_tokens": 1}
    timings: dict[str, Any] = client.post("/v1/completions", json=body).json()["timings"]
    return timings


def change(client: httpx.Client, action: str, slot: int = 0, **body: Any) -> httpx.Response:
    return client.post(f"/slots/{slot}", params={"action": action}, json=body)


def test_a_saved_chat_goes_on_after_it_was_erased(own: httpx.Client, cache: Path) -> None:
    length = read(own, STORY)["prompt_n"]
    saved = change(own, "save", filename="story.bin").json()
    assert saved["n_saved"] == length and saved["filename"] == "story.bin"
    (path,) = cache.rglob("*.kv")
    assert path.parent.name == "sessions" and path.stat().st_size == saved["n_written"]

    assert change(own, "erase").json() == {"id_slot": 0, "n_erased": length}
    assert change(own, "erase").json()["n_erased"] == 0
    assert read(own, STORY)["cache_n"] == 0, "an erased chat is read anew"
    change(own, "erase")

    restored = change(own, "restore", filename="story.bin").json()
    assert (restored["n_restored"], restored["n_read"]) == (length, saved["n_written"])
    assert restored["timings"]["restore_ms"] > 0
    assert read(own, STORY + "More.")["cache_n"] >= length - 1


def test_slots_count_from_the_chat_that_was_read_last(own: httpx.Client) -> None:
    read(own, "A" * 300)
    read(own, "B" * 200)
    assert change(own, "save", 1, filename="older").json()["n_saved"] == 301, "BOS counts"
    assert change(own, "save", 0, filename="newer").json()["n_saved"] == 201
    assert change(own, "restore", 0, filename="older").json()["n_restored"] == 301


def test_a_saved_chat_outlives_its_engine(own: httpx.Client, kept: Gateway) -> None:
    async def reload() -> None:
        await kept.models.start_reload(num_ctx=1024).wait()

    length = read(own, STORY)["prompt_n"]
    change(own, "save", filename="story")
    kept.run(reload())
    assert change(own, "restore", filename="story").json()["n_restored"] == length
    assert read(own, STORY)["cache_n"] == length - 1


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/b", "a\\b", "", ".x", "x" * 200, "a\nb", None, 5]
)
def test_a_path_is_no_name(own: httpx.Client, cache: Path, name: Any) -> None:
    read(own, STORY)
    for action in ("save", "restore"):
        answer = change(own, action, filename=name)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["message"].startswith("filename")
    assert not list(cache.parent.rglob("*.kv"))


def test_what_cannot_be_done_says_why(own: httpx.Client, cache: Path) -> None:
    assert change(own, "save", filename="x").status_code == 400, "nothing was read yet"
    assert change(own, "restore", filename="x").status_code == 404
    assert change(own, "copy", filename="x").status_code == 400
    assert change(own, "save", -1, filename="x").status_code == 400
    (cache / "sessions").mkdir(parents=True)
    (cache / "sessions" / "x.kv").write_bytes(b"something else, long enough for a header" * 9)
    broken = change(own, "restore", filename="x")
    assert broken.status_code == 400 and "cannot be restored" in broken.text


def test_without_a_folder_it_is_501(client: httpx.Client) -> None:
    answer = change(client, "save", filename="x")
    assert answer.status_code == 501
    assert answer.json()["error"]["type"] == "not_supported_error"
