"""The built-in model, served by a real process."""

from pathlib import Path

import httpx
import pytest

from tests.server_process import ServerProcess


@pytest.mark.parametrize("arguments", [(), ("--demo",)])
def test_without_a_model_the_built_in_one_answers(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    with ServerProcess(tmp_path, *arguments, "--offline") as server:
        assert ("No model in" in server.log) == (not arguments)
        with httpx.Client(base_url=server.api_url, timeout=60) as client:
            listed = client.get("v1/models").json()["data"]
            assert [model["id"] for model in listed] == ["innkeeper-demo-q8_0"]
            body = {
                "messages": [{"role": "user", "content": "Good evening! Who are you?"}],
                "temperature": 0,
            }
            answer = client.post("v1/chat/completions", json=body).json()
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert len(answer["choices"][0]["message"]["content"]) > 10
        state = httpx.get(f"{server.ui_url}innkeeper/v1/state").json()
        assert "Mara" in state["persona"]["greeting"]
