"""The page's routes: files with a strict policy, the server's state, and the chat's lines."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from innkeeper import demo
from innkeeper.core import GenerateRequest, ModelFacts, Timings
from innkeeper.core.frames import Delta, Finished
from innkeeper.errors import NoModelError
from innkeeper.serving import Generate, LoadState, Models
from innkeeper.ui import OPEN_PATHS, Places, create_ui
from innkeeper.ui.app import state_of

PLACES = Places("http://127.0.0.1:5000/", "http://127.0.0.1:7860/")
CHAT = "/innkeeper/v1/chat"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


class ScriptedGenerate:
    """Answers each request with ``events``; an error among them is raised."""

    def __init__(self, *events: Delta | Finished | Exception) -> None:
        self.events = events
        self.requests: list[GenerateRequest] = []
        self.num_closed = 0

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Delta | Finished, None]:
        self.requests.append(request)
        try:
            for event in self.events:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.num_closed += 1


def finished(*warnings: str) -> Finished:
    timings = Timings(prompt_n=3, cache_n=2, prompt_ms=1.0, predicted_n=1, predicted_ms=2.0)
    return Finished(1, 0, "stop", timings, warnings=warnings)


def models(**facts: Any) -> Models:
    given = {"facts": None, "job": None, "healthy": False, **facts}
    return cast(Models, SimpleNamespace(**given))


@pytest.fixture
def generate() -> ScriptedGenerate:
    return ScriptedGenerate(Delta(1, 0, "Hel", 1), Delta(1, 0, "lo", 2), finished("odd field"))


@pytest.fixture
async def client(generate: ScriptedGenerate) -> AsyncIterator[httpx.AsyncClient]:
    app = create_ui(cast(Generate, generate), models(), PLACES)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=PLACES.ui_url) as client:
        yield client


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
async def test_every_file_comes_with_the_strict_policy(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.get(path)
    policy = response.headers["content-security-policy"]
    assert response.status_code == 200 and response.content
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_the_page_has_no_inline_code_and_needs_no_other_server(
    client: httpx.AsyncClient,
) -> None:
    page = (await client.get("/")).text
    script = (await client.get("/page.js")).text
    style = (await client.get("/page.css")).text
    assert page.count("<script") == page.count('<script src="page.js"') == 1
    assert "style=" not in page and "onclick" not in page and "javascript:" not in page
    assert "innerHTML" not in script and "eval(" not in script and "insertAdjacent" not in script
    assert "://" not in script and "url(" not in style and "http" not in page


async def test_the_chat_is_one_json_object_a_line(
    client: httpx.AsyncClient, generate: ScriptedGenerate
) -> None:
    response = await client.post(CHAT, json=HELLO)
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert "".join(line.get("text", "") for line in lines) == "Hello"
    assert lines[-1]["done"] == "stop" and lines[-1]["warnings"] == ["odd field"]
    assert lines[-1]["timings"]["cache_n"] == 2
    assert generate.num_closed == 1


async def test_what_the_page_asks_reaches_the_use_case(
    client: httpx.AsyncClient, generate: ScriptedGenerate
) -> None:
    await client.post(CHAT, json={**HELLO, "max_tokens": 7, "temperature": 0})
    (request,) = generate.requests
    assert request.messages is not None and request.messages[0].content == "Hello"
    assert (request.max_tokens, request.sampling.temperature) == (7, 0.0)
    assert request.drops_turns, "a chat of the page goes on past its context"


async def test_an_error_ends_the_lines_with_its_words(
    client: httpx.AsyncClient, generate: ScriptedGenerate
) -> None:
    generate.events = (Delta(1, 0, "He", 1), NoModelError("no model is loaded"))
    lines = (await client.post(CHAT, json=HELLO)).text.splitlines()
    assert json.loads(lines[-1]) == {"error": "no model is loaded"}


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"messages": []}',
        b'{"messages": [{"role": "wizard", "content": "x"}]}',
        b'{"messages": [{"role": "user", "content": 7}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "path": "/etc/passwd"}',
        b'{"messages": ' + b"[" * 100_000,
    ],
)
async def test_a_bad_body_is_refused_before_anything_is_generated(
    client: httpx.AsyncClient, generate: ScriptedGenerate, body: bytes
) -> None:
    response = await client.post(CHAT, content=body)
    assert response.status_code == 400 and response.json()["error"]["message"]
    assert generate.requests == []


def test_without_a_load_the_state_is_none() -> None:
    assert state_of(models(), PLACES).status == "none"


def test_a_load_shows_its_fraction() -> None:
    load = LoadState(name="m", stage="weights", fraction=0.25)
    state = state_of(models(job=SimpleNamespace(running=True, state=load)), PLACES)
    assert (state.status, state.stage, state.fraction) == ("loading", "weights", 0.25)


def test_a_failed_load_shows_why() -> None:
    load = LoadState(name="m", status="failed", error=NoModelError("it is gone"))
    state = state_of(models(job=SimpleNamespace(running=False, state=load)), PLACES)
    assert (state.status, state.error) == ("failed", "it is gone")


def test_built_in_model_is_greeted_by_its_character() -> None:
    state = state_of(models(facts=facts(str(demo.MODEL)), healthy=True), PLACES)
    assert state.persona is not None
    assert state.persona.name in state.persona.greeting
    assert "{{" not in state.persona.system + state.persona.greeting
    assert state_of(models(facts=facts("other.gguf"), healthy=True), PLACES).persona is None


def facts(path: str) -> ModelFacts:
    texts = dict.fromkeys("name backend architecture description bos_text eos_text".split(), "x")
    numbers = "num_params size_bytes num_vocab num_ctx num_ctx_train num_pool max_sequences".split()
    given: dict[str, Any] = {**texts, **dict.fromkeys(numbers, 1)}
    return ModelFacts(
        **given,
        path=path,
        add_bos=True,
        bos_id=None,
        end_ids=(),
        max_token_bytes=1,
        chat_template=None,
    )
