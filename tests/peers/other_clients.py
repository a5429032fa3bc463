"""Calls by clients whose requirements conflict with ours; it runs in a Python of their own.

``python other_clients.py LIBRARY URL`` makes every call of ``LIBRARY`` against the server at URL,
whose model is called ``fake``, and prints how many there were. What goes wrong is raised.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no list of prices from the network

KEY = "none"
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look at something.",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string", "enum": ["door", "fire"]}},
            "required": ["at"],
            "additionalProperties": False,
        },
    },
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 1.5, "top_p": 0.5},
    {"stop": ["q", "z"]},
    {"presence_penalty": 0.5, "frequency_penalty": 0.5},
    {"seed": 7},
]


def litellm_calls(url: str) -> Iterator[None]:
    import litellm

    litellm.suppress_debug_info = True
    os.environ["OLLAMA_API_BASE"] = url  # it asks there, whatever the call's own base is
    homes = {
        "openai": f"{url}/v1",
        "hosted_vllm": f"{url}/v1",
        "lm_studio": f"{url}/v1",
        "anthropic": url,
        "ollama": url,
        "ollama_chat": url,
    }
    for (provider, base), options in itertools.product(homes.items(), OPTIONS):
        known = {
            name: value
            for name, value in options.items()
            if provider != "anthropic" or name in ("temperature", "stop")
        }
        call = {
            "model": f"{provider}/fake",
            "api_base": base,
            "api_key": KEY,
            "max_tokens": 5,
            "drop_params": True,
            **known,
        }
        whole = litellm.completion(messages=CHAT, **call)
        assert whole.choices[0].finish_reason in ("length", "stop")
        assert whole.usage.prompt_tokens > 0
        yield
        pieces = list(litellm.completion(messages=CHAT, stream=True, **call))
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        if options.get("temperature") == 0:
            assert text == (whole.choices[0].message.content or "")
        yield
    openai = {"model": "openai/fake", "api_base": f"{url}/v1", "api_key": KEY, "max_tokens": 40}
    form = {"type": "json_schema", "json_schema": {"name": "ok", "schema": SCHEMA, "strict": True}}
    held = litellm.completion(messages=CHAT, response_format=form, **openai)
    assert held.choices[0].message.content.replace(" ", "").startswith('{"ok":')
    yield
    called = litellm.completion(
        messages=CHAT, tools=[TOOL], tool_choice="required", **{**openai, "max_tokens": 400}
    )
    assert called.choices[0].message.tool_calls[0].function.name == "look"
    yield
    counted = litellm.text_completion(prompt="hi", logprobs=2, **openai)
    assert len(counted.choices[0].logprobs.tokens) > 0
    yield
    several = litellm.completion(messages=CHAT, n=3, **{**openai, "max_tokens": 3})
    assert len(several.choices) == 3
    yield
    for body, kind in (
        ({"messages": []}, litellm.BadRequestError),
        ({"messages": CHAT, "temperature": -5}, litellm.BadRequestError),
        ({"messages": [{"role": "user", "content": "x" * 20000}]}, litellm.BadRequestError),
    ):
        _raises(kind, lambda body=body: litellm.completion(**{**openai, **body}, num_retries=0))
        yield
    whole = asyncio.run(litellm.acompletion(messages=CHAT, **openai))
    assert whole.choices[0].message.content
    yield


def llm_calls(url: str) -> Iterator[None]:
    from llm.default_plugins.openai_models import Chat, Completion

    chat = Chat("fake", model_name="fake", api_base=f"{url}/v1", supports_schema=True)
    text = Completion("fake-text", model_name="fake", api_base=f"{url}/v1")
    for model, options, stream in itertools.product((chat, text), OPTIONS, (False, True)):
        known = {name: value for name, value in options.items() if name != "stop"}
        reply = model.prompt("hi", key=KEY, stream=stream, max_tokens=5, **known)
        assert len(reply.text()) > 0
        assert stream or model is text or reply.usage().output > 0
        yield
    reply = chat.prompt("hi", key=KEY, schema=SCHEMA, stream=False, max_tokens=40)
    assert reply.text().replace(" ", "").startswith('{"ok":')
    yield
    conversation = chat.conversation()
    for turn in range(3):
        assert conversation.prompt(f"turn {turn}", key=KEY, max_tokens=4, stream=False).text()
        yield


def langchain_openai_calls(url: str) -> Iterator[None]:
    from langchain_openai import ChatOpenAI, OpenAI

    base = {"base_url": f"{url}/v1", "api_key": KEY, "model": "fake", "max_retries": 0}
    for kind, options in itertools.product((ChatOpenAI, OpenAI), OPTIONS):
        model = kind(**base, max_tokens=5, **options)
        whole = model.invoke("hi")
        text = whole if isinstance(whole, str) else whole.content
        yield
        pieces = [each if isinstance(each, str) else each.content for each in model.stream("hi")]
        if options.get("temperature") == 0:
            assert "".join(pieces) == text
        yield
    chat = ChatOpenAI(**base, max_tokens=400)
    held = chat.with_structured_output({**SCHEMA, "title": "answer"}, method="json_schema")
    assert isinstance(held.invoke("hi")["ok"], bool)
    yield
    called = chat.bind_tools([TOOL], tool_choice="required").invoke("hi")
    assert called.tool_calls[0]["name"] == "look"
    yield
    assert len(chat.batch(["a", "b", "c"])) == 3
    yield
    assert asyncio.run(chat.ainvoke("hi")).usage_metadata["output_tokens"] > 0
    yield


def langchain_ollama_calls(url: str) -> Iterator[None]:
    from langchain_ollama import ChatOllama, OllamaLLM

    for kind, options in itertools.product((ChatOllama, OllamaLLM), OPTIONS):
        named = {name: value for name, value in options.items() if "penalty" not in name}
        model = kind(base_url=url, model="fake", num_predict=5, **named)
        whole = model.invoke("hi")
        text = whole if isinstance(whole, str) else whole.content
        yield
        pieces = [each if isinstance(each, str) else each.content for each in model.stream("hi")]
        if options.get("temperature") == 0:
            assert "".join(pieces) == text
        yield
    chat = ChatOllama(base_url=url, model="fake", num_predict=60)
    held = chat.with_structured_output(SCHEMA, method="json_schema").invoke("hi")
    assert isinstance(held["ok"], bool)
    yield
    _raises(Exception, lambda: ChatOllama(base_url=url, model="other").invoke("hi"))
    yield


def _raises(kind: type[Exception], act: Callable[[], object]) -> None:
    try:
        act()
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was expected")


LIBRARIES = {
    "litellm": litellm_calls,
    "llm": llm_calls,
    "langchain-openai": langchain_openai_calls,
    "langchain-ollama": langchain_ollama_calls,
}

if __name__ == "__main__":
    print("calls:", sum(1 for _ in LIBRARIES[sys.argv[1]](sys.argv[2])))
