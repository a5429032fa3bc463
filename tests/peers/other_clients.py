"""Calls by clients whose requirements conflict with ours; it runs in a Python of their own.

``python other_clients.py LIBRARY URL`` makes every call of ``LIBRARY`` against the server at URL,
whose model is called ``fake``, prints each before it is made, and how many there were. What goes
wrong is raised; a call that does not end shows where every thread stands, and ends the process.
"""

import asyncio
import faulthandler
import gc
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # no list of prices from the network

HTTP_SECONDS = 30
CALL_SECONDS = 120
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


def litellm_calls(url: str) -> Iterator[str]:
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
            "timeout": HTTP_SECONDS,
            **known,
        }
        yield f"{provider} {options}"
        whole = litellm.completion(messages=CHAT, **call)
        assert whole.choices[0].finish_reason in ("length", "stop")
        assert whole.usage.prompt_tokens > 0
        yield f"{provider} {options}, streamed"
        pieces = list(litellm.completion(messages=CHAT, stream=True, **call))
        text = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        if options.get("temperature") == 0:
            assert text == (whole.choices[0].message.content or "")
    openai = {
        "model": "openai/fake",
        "api_base": f"{url}/v1",
        "api_key": KEY,
        "max_tokens": 40,
        "timeout": HTTP_SECONDS,
    }
    form = {"type": "json_schema", "json_schema": {"name": "ok", "schema": SCHEMA, "strict": True}}
    yield "a JSON schema"
    held = litellm.completion(messages=CHAT, response_format=form, **openai)
    assert held.choices[0].message.content.replace(" ", "").startswith('{"ok":')
    yield "a tool"
    called = litellm.completion(
        messages=CHAT, tools=[TOOL], tool_choice="required", **{**openai, "max_tokens": 400}
    )
    assert called.choices[0].message.tool_calls[0].function.name == "look"
    yield "text with log probabilities"
    counted = litellm.text_completion(prompt="hi", logprobs=2, **openai)
    assert len(counted.choices[0].logprobs.tokens) > 0
    yield "three choices"
    several = litellm.completion(messages=CHAT, n=3, **{**openai, "max_tokens": 3})
    assert len(several.choices) == 3
    for body, kind in (
        ({"messages": []}, litellm.BadRequestError),
        ({"messages": CHAT, "temperature": -5}, litellm.BadRequestError),
        ({"messages": [{"role": "user", "content": "x" * 20000}]}, litellm.BadRequestError),
    ):
        yield f"refused: {str(body)[:80]}"
        _raises(kind, lambda body=body: litellm.completion(**{**openai, **body}, num_retries=0))
    yield "from a coroutine"
    whole = asyncio.run(litellm.acompletion(messages=CHAT, **openai))
    assert whole.choices[0].message.content


def llm_calls(url: str) -> Iterator[str]:
    from llm.default_plugins.openai_models import Chat, Completion

    chat = Chat("fake", model_name="fake", api_base=f"{url}/v1", supports_schema=True)
    text = Completion("fake-text", model_name="fake", api_base=f"{url}/v1")
    for model, options, stream in itertools.product((chat, text), OPTIONS, (False, True)):
        known = {name: value for name, value in options.items() if name != "stop"}
        yield f"{model.model_id} {options}, streamed: {stream}"
        reply = model.prompt("hi", key=KEY, stream=stream, max_tokens=5, **known)
        assert len(reply.text()) > 0
        assert stream or model is text or reply.usage().output > 0
    yield "a JSON schema"
    reply = chat.prompt("hi", key=KEY, schema=SCHEMA, stream=False, max_tokens=40)
    assert reply.text().replace(" ", "").startswith('{"ok":')
    conversation = chat.conversation()
    for turn in range(3):
        yield f"turn {turn}"
        assert conversation.prompt(f"turn {turn}", key=KEY, max_tokens=4, stream=False).text()


def langchain_openai_calls(url: str) -> Iterator[str]:
    from langchain_openai import ChatOpenAI, OpenAI

    base = {"base_url": f"{url}/v1", "api_key": KEY, "model": "fake", "max_retries": 0}
    base["timeout"] = HTTP_SECONDS
    for kind, options in itertools.product((ChatOpenAI, OpenAI), OPTIONS):
        model = kind(**base, max_tokens=5, **options)
        yield f"{kind.__name__} {options}"
        whole = model.invoke("hi")
        text = whole if isinstance(whole, str) else whole.content
        yield f"{kind.__name__} {options}, streamed"
        pieces = [each if isinstance(each, str) else each.content for each in model.stream("hi")]
        if options.get("temperature") == 0:
            assert "".join(pieces) == text
    chat = ChatOpenAI(**base, max_tokens=400)
    yield "a JSON schema"
    held = chat.with_structured_output({**SCHEMA, "title": "answer"}, method="json_schema")
    assert isinstance(held.invoke("hi")["ok"], bool)
    yield "a tool"
    called = chat.bind_tools([TOOL], tool_choice="required").invoke("hi")
    assert called.tool_calls[0]["name"] == "look"
    yield "three at once"
    assert len(chat.batch(["a", "b", "c"])) == 3
    yield "from a coroutine"
    assert asyncio.run(chat.ainvoke("hi")).usage_metadata["output_tokens"] > 0


def langchain_ollama_calls(url: str) -> Iterator[str]:
    from langchain_ollama import ChatOllama, OllamaLLM

    limits = {"timeout": HTTP_SECONDS}
    for kind, options in itertools.product((ChatOllama, OllamaLLM), OPTIONS):
        named = {name: value for name, value in options.items() if "penalty" not in name}
        model = kind(base_url=url, model="fake", num_predict=5, client_kwargs=limits, **named)
        yield f"{kind.__name__} {options}"
        whole = model.invoke("hi")
        text = whole if isinstance(whole, str) else whole.content
        yield f"{kind.__name__} {options}, streamed"
        pieces = [each if isinstance(each, str) else each.content for each in model.stream("hi")]
        if options.get("temperature") == 0:
            assert "".join(pieces) == text
    chat = ChatOllama(base_url=url, model="fake", num_predict=60, client_kwargs=limits)
    yield "a JSON schema"
    held = chat.with_structured_output(SCHEMA, method="json_schema").invoke("hi")
    assert isinstance(held["ok"], bool)
    yield "a model that is not here"
    _raises(Exception, lambda: ChatOllama(base_url=url, model="other").invoke("hi"))


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


def run(library: str, url: str) -> int:
    """Makes every call; how many there were. The last limit is for the end of the process.

    Garbage is collected between calls only: litellm leaves Ollama's streams unread behind the last
    line, and httpcore waits for ever for a lock of its own if such a stream is collected while the
    same thread opens the next connection.
    """
    gc.disable()
    names = LIBRARIES[library](url)
    for count in itertools.count():
        gc.collect()
        faulthandler.dump_traceback_later(CALL_SECONDS, exit=True)
        if (name := next(names, None)) is None:
            break
        print(count + 1, name, flush=True)
    return count


if __name__ == "__main__":
    print("calls:", run(*sys.argv[1:]), flush=True)
