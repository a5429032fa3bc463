"""``/tokenize`` and ``/detokenize``, which llama-server, vLLM, Aphrodite and KoboldCpp all have.

The body's fields say who asks; see ``dialects``.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper import __version__
from innkeeper.api import chat, requests, schema, values
from innkeeper.api.openai import json_response
from innkeeper.api.stream import read_json
from innkeeper.core import GenerateRequest
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Generate

_MAX_TEXT_CHARS = 16 * 1024 * 1024
_read_text = values.text(_MAX_TEXT_CHARS)


def router(generate: Generate) -> APIRouter:
    """``/tokenize``, ``/detokenize``, their names under ``/v1``, and ``/version``."""
    routes = APIRouter(tags=["llama-server and vLLM"])

    @routes.post(
        "/tokenize",
        summary="Token ids of a text or a chat",
        openapi_extra=schema.body(
            {
                "content": {"description": "text, for llama-server's clients"},
                "prompt": schema.plain("string", "text, for vLLM's and KoboldCpp's"),
                "messages": schema.plain("array", "a chat"),
                "add_special": schema.plain("boolean", "with BOS; or add_special_tokens"),
            }
        ),
    )
    @routes.post("/v1/tokenize", include_in_schema=False)
    async def tokenize(request: Request) -> Response:
        body = await read_json(request)
        if body.get("content") is not None:
            return json_response(await _llama(body, generate))
        return json_response(await _vllm(body, generate))

    @routes.post(
        "/detokenize",
        summary="Text of token ids",
        openapi_extra=schema.body({"tokens": {"type": "array"}}, ("tokens",)),
    )
    @routes.post("/v1/detokenize", include_in_schema=False)
    async def detokenize(request: Request) -> Response:
        body = await read_json(request)
        tokens = values.token_ids("tokens", body.get("tokens"))
        text = await generate.detokenize(tokens, model=requests.model(body))
        return json_response({"content": text, "prompt": text})

    @routes.post(
        "/v1/chat/completions/input_tokens",
        summary="Number of tokens of a chat",
        openapi_extra=schema.CHAT_BODY,
    )
    async def count(request: Request) -> Response:
        return json_response(await input_tokens(chat.parse(await read_json(request)), generate))

    @routes.get("/ping", include_in_schema=False)
    @routes.post("/ping", include_in_schema=False)
    async def ping() -> Response:
        return Response()

    @routes.get("/version", summary="This server's version")
    async def version() -> Response:
        return json_response({"version": __version__})

    return routes


async def input_tokens(call: chat.Call, generate: Generate) -> dict[str, Any]:
    """What a chat's prompt would cost, in OpenAI's words."""
    count = await num_chat_tokens(call.request, generate)
    return {"object": "response.input_tokens", "input_tokens": count}


async def num_chat_tokens(request: GenerateRequest, generate: Generate) -> int:
    """Tokens of the prompt that ``request``'s messages become."""
    return len(await _chat_tokens(request, generate))


async def _chat_tokens(request: GenerateRequest, generate: Generate) -> tuple[int, ...]:
    text = await generate.render(request)
    facts = generate.models.facts_of(request.model)
    add_bos = facts is not None and facts.add_bos and not text.startswith(facts.bos_text or " ")
    return await generate.tokenize(text, model=request.model, add_special=add_bos)


async def _piece(token: int, model: str, generate: Generate) -> str:
    """The token's text as it stands inside a text: at its beginning a space may be dropped."""
    alone = await generate.detokenize((token,), model=model)
    return (await generate.detokenize((token, token), model=model))[len(alone) :]


async def _llama(body: Mapping[str, Any], generate: Generate) -> dict[str, Any]:
    content, model = body["content"], requests.model(body)
    parts = content if isinstance(content, list) else [content]
    add_special = values.flag("add_special", body.get("add_special") or False)
    parse_special = values.flag("parse_special", body.get("parse_special", True))
    tokens: list[int] = []
    for part in parts:
        if type(part) is int:
            tokens.append(part)
            continue
        text = _read_text("content", part)
        tokens += await generate.tokenize(
            text,
            model=model,
            add_special=add_special and not tokens,
            parse_special=parse_special,
        )
    if not values.flag("with_pieces", body.get("with_pieces") or False):
        return {"tokens": tokens}
    pieces = [await _piece(token, model, generate) for token in tokens]
    return {"tokens": [{"id": i, "piece": p} for i, p in zip(tokens, pieces, strict=True)]}


async def _vllm(body: Mapping[str, Any], generate: Generate) -> dict[str, Any]:
    """vLLM's words, and KoboldCpp's."""
    model = requests.model(body)
    if body.get("messages") is not None:
        tokens = await _chat_tokens(chat.parse(body).request, generate)
    elif body.get("prompt") is not None:
        name = "add_special_tokens" if "add_special_tokens" in body else "special"
        add_special = values.flag(name, body.get(name) or False)
        text = _read_text("prompt", body["prompt"])
        tokens = await generate.tokenize(text, model=model, add_special=add_special)
    else:
        raise InvalidRequestError(
            "content is missing", field="content", hint="or send prompt, or messages"
        )
    facts = generate.models.facts_of(model)
    found = {
        "count": len(tokens),
        "max_model_len": facts.num_ctx if facts else 0,
        "tokens": tokens,
        "value": len(tokens),
        "ids": tokens,
    }
    if values.flag("return_token_strs", body.get("return_token_strs") or False):
        found["token_strs"] = [await _piece(token, model, generate) for token in tokens]
    return found
