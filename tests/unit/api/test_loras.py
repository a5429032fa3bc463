"""Adapters change when no reply is being written."""

import threading
from pathlib import Path

import httpx
import pytest

from innkeeper.serving import models as serving_models
from tests.unit.api.gateway import Gateway


def test_a_switch_waits_for_the_reply_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as on a GPU, where the old engine must end before the new one starts
    monkeypatch.setattr(serving_models, "_know_memory", lambda going: False)
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "style.gguf").write_bytes(b"GGUF")
    body = {"prompt": "once", "max_tokens": 60, "stream": True, "temperature": 0}
    answers: list[httpx.Response] = []
    with Gateway(tmp_path, tokens_per_second="100") as own, own.client() as client:

        def switch() -> None:
            with own.client() as other:
                wanted = {"lora_names": ["style"]}
                answers.append(other.post("/v1/internal/lora/load", json=wanted))

        switching = threading.Thread(target=switch)
        with client.stream("POST", "/v1/completions", json=body) as reply:
            events = reply.iter_lines()
            next(events)
            switching.start()
            text = "\n".join(events)
        switching.join()
        assert '"finish_reason":"length"' in text
        assert answers[0].json() == "OK"
        assert client.get("/v1/internal/lora/list").json() == {"lora_names": ["style"]}
