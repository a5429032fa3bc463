"""``debug``: the final prompt and its token ids, as the model was given them."""

import json
from typing import Any

import httpx
import pytest

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hé"}], "max_tokens": 2}
SEEN = "<s><|im_start|>user\nhé<|im_end|>\n<|im_start|>assistant\n"
CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/chat/completions": (CHAT, SEEN),
    "/v1/messages": (CHAT, SEEN),
    "/api/chat": ({**CHAT, "model": "fake", "stream": False}, SEEN),
    "/v1/completions": ({"prompt": "abc", "max_tokens": 2}, "<s>abc"),
    "/completion": ({"prompt": "abc", "n_predict": 2}, "<s>abc"),
    "/api/v1/generate": ({"prompt": "abc", "max_length": 2}, "<s>abc"),
}


@pytest.mark.parametrize("path", CALLS)
def test_every_dialect_shows_what_the_model_saw(client: httpx.Client, path: str) -> None:
    body, prompt = CALLS[path]
    plain = client.post(path, json=body).json()
    assert "debug" not in plain
    answer = client.post(path, json={**body, "debug": True}).json()
    seen = answer["debug"][0] if isinstance(answer["debug"], list) else answer["debug"]
    assert seen["prompt"] == prompt
    assert seen["tokens"] == [256, *prompt.removeprefix("<s>").encode()]
    assert not any("debug" in warning for warning in answer.get("warnings", ()))


def test_a_cut_prompt_is_shown_as_it_was_read(client: httpx.Client) -> None:
    body = {"prompt": "x" * 100 + "end", "max_tokens": 2, "truncation_length": 10, "debug": True}
    text = client.post("/v1/completions", json={**body, "stream": True}).text
    last = json.loads(text.split("data: ")[-2])
    assert last["debug"][0]["prompt"] == "<s>xxxxend"
