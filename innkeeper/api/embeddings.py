"""Embeddings and reranking by the routes of OpenAI, llama-server, Ollama, KoboldCpp and Jina."""

import base64
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import requests, schema, values
from innkeeper.api.openai import json_response
from innkeeper.api.stream import read_json, unless_client_leaves
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Embed, Embedded
from innkeeper.serving.embed import Text

_MAX_TEXT_CHARS = 4 * 1024 * 1024
_read_text = values.text(_MAX_TEXT_CHARS)
_EUCLIDEAN = 2
_INPUT = {"description": "text, token ids, or a list of either"}
_MODEL = schema.plain("string", "an embedding model of /v1/models; without it one that is loaded")
_TRUNCATE = schema.plain("boolean", "cut what is too long; else it is refused")
_BODY = schema.body(
    {
        "input": _INPUT,
        "model": _MODEL,
        "encoding_format": schema.plain("string", "float or base64"),
        "truncate": _TRUNCATE,
    },
    ("input",),
)
_RERANK_BODY = schema.body(
    {
        "query": schema.plain("string", "what the documents are compared with"),
        "documents": schema.plain("array", "texts; or texts, in TEI's dialect"),
        "top_n": schema.plain("integer", "only the best ones"),
        "return_documents": schema.plain("boolean", "with their texts; or return_text"),
        "model": _MODEL,
    },
    ("query",),
)


def router(embed: Embed) -> APIRouter:
    """``/v1/embeddings``, ``/embedding``, ``/api/embed`` and their like, ``/v1/rerank``."""
    routes = APIRouter(tags=["Embeddings"])
    _add_openai(routes, embed)
    _add_llama(routes, embed)
    _add_ollama(routes, embed)
    _add_rerank(routes, embed)
    return routes


def _add_openai(routes: APIRouter, embed: Embed) -> None:
    @routes.post("/v1/embeddings", summary="Vectors of texts", openapi_extra=_BODY)
    @routes.post("/api/extra/embeddings", include_in_schema=False)
    async def openai(request: Request) -> Response:
        body = await read_json(request)
        read = values.choice("float", "base64")
        encoding = read("encoding_format", body.get("encoding_format") or "float")
        found = await _vectors(request, embed, body, inputs(body, "input"))
        vectors = (
            [base64.b64encode(each).decode() for each in found.vectors]
            if encoding == "base64"
            else found.floats()
        )
        return json_response(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "embedding": vector, "index": number}
                    for number, vector in enumerate(vectors)
                ],
                "model": found.model,
                "usage": {"prompt_tokens": found.num_tokens, "total_tokens": found.num_tokens},
                "warnings": _not_applied(body),
            }
        )


def _add_llama(routes: APIRouter, embed: Embed) -> None:
    @routes.post(
        "/embedding",
        summary="Vectors of texts, for llama-server's clients",
        openapi_extra=schema.body(
            {
                "content": _INPUT,
                "input": _INPUT,
                "model": _MODEL,
                "truncate": _TRUNCATE,
                "embd_normalize": schema.plain("integer", "2 = to a length of 1; -1 = as they are"),
            }
        ),
    )
    @routes.post("/embeddings", include_in_schema=False)
    async def llama(request: Request) -> Response:
        body = await read_json(request)
        norm = values.integer(-1, 2)("embd_normalize", body.get("embd_normalize", _EUCLIDEAN))
        if norm not in (-1, _EUCLIDEAN):
            raise values.refuse("embd_normalize", "2 or -1", norm)
        field = "content" if body.get("content") is not None else "input"
        found = await _vectors(
            request, embed, body, inputs(body, field), normalize=norm == _EUCLIDEAN
        )
        return json_response(
            [{"index": i, "embedding": [vector]} for i, vector in enumerate(found.floats())]
        )


def _add_ollama(routes: APIRouter, embed: Embed) -> None:
    @routes.post(
        "/api/embed",
        summary="Vectors of texts, for Ollama's clients",
        openapi_extra=schema.body(
            {
                "model": _MODEL,
                "input": _INPUT,
                "truncate": schema.plain("boolean", "false: refuse what is too long; else cut it"),
            },
            ("model", "input"),
        ),
    )
    async def embed_many(request: Request) -> Response:
        body = {"truncate": True, **await read_json(request)}
        found = await _vectors(request, embed, body, inputs(body, "input"))
        answer = {"model": found.model, "embeddings": found.floats()}
        return json_response({**answer, "prompt_eval_count": found.num_tokens})

    @routes.post("/api/embeddings", include_in_schema=False)
    async def embed_one(request: Request) -> Response:
        body = {"truncate": True, **await read_json(request)}
        found = await _vectors(request, embed, body, inputs(body, "prompt"))
        return json_response({"embedding": found.floats()[0]})


def _add_rerank(routes: APIRouter, embed: Embed) -> None:
    @routes.post("/v1/rerank", summary="Documents by relevance", openapi_extra=_RERANK_BODY)
    @routes.post("/v1/reranking", include_in_schema=False)
    @routes.post("/rerank", include_in_schema=False)
    @routes.post("/reranking", include_in_schema=False)
    async def rerank(request: Request) -> Response:
        body = await read_json(request)
        query = _read_text("query", body.get("query"))
        is_tei = body.get("documents") is None and body.get("texts") is not None
        documents = _documents(body, "texts" if is_tei else "documents")
        top = values.integer(1, 1_000_000)("top_n", body.get("top_n") or len(documents) or 1)
        work = embed.scores(query, documents, model=requests.model(body))
        found = await unless_client_leaves(request.receive, work)
        ranked = sorted(enumerate(found.floats()), key=lambda each: -each[1][0])[:top]
        scored = [(number, vector[0]) for number, vector in ranked]
        if is_tei:
            return json_response(_tei(scored, documents, body))
        return json_response(_jina(scored, documents, body, found))


def inputs(body: Mapping[str, Any], field: str) -> list[Text]:
    """Texts and token ids. Raises: InvalidRequestError."""
    given = body.get(field)
    if given is None:
        raise InvalidRequestError(f"{field} is missing", field=field, hint="send some text")
    if isinstance(given, str) or (
        isinstance(given, list) and given and all(type(each) is int for each in given)
    ):
        given = [given]
    if not isinstance(given, list) or not given:
        raise values.refuse(field, "a text, token ids, or a list of either", given)
    return [
        values.token_ids(field, each) if isinstance(each, list) else _read_text(field, each)
        for each in given
    ]


def _documents(body: Mapping[str, Any], field: str) -> list[str]:
    """Texts, or objects with one. Raises: InvalidRequestError."""
    given = body.get(field)
    if not isinstance(given, list) or not given:
        raise values.refuse(field, "a list of texts", given)
    texts = [each.get("text") if isinstance(each, dict) else each for each in given]
    return [_read_text(f"{field}[{number}]", each) for number, each in enumerate(texts)]


async def _vectors(
    request: Request,
    embed: Embed,
    body: Mapping[str, Any],
    texts: list[Text],
    *,
    normalize: bool = True,
) -> Embedded:
    work = embed.vectors(
        texts,
        model=requests.model(body),
        truncate=values.flag("truncate", body.get("truncate") or False),
        normalize=normalize,
    )
    return await unless_client_leaves(request.receive, work)


def _not_applied(body: Mapping[str, Any]) -> list[str]:
    return requests.ignored(body, {"dimensions": ()})


def _tei(
    scored: list[tuple[int, float]], documents: list[str], body: Mapping[str, Any]
) -> list[dict[str, Any]]:
    with_text = values.flag("return_text", body.get("return_text") or False)
    return [
        {"index": number, "score": score, **({"text": documents[number]} if with_text else {})}
        for number, score in scored
    ]


def _jina(
    scored: list[tuple[int, float]],
    documents: list[str],
    body: Mapping[str, Any],
    found: Embedded,
) -> dict[str, Any]:
    with_text = values.flag("return_documents", body.get("return_documents") or False)
    results = [
        {
            "index": number,
            "relevance_score": score,
            **({"document": {"text": documents[number]}} if with_text else {}),
        }
        for number, score in scored
    ]
    usage = {"prompt_tokens": found.num_tokens, "total_tokens": found.num_tokens}
    return {"model": found.model, "object": "list", "usage": usage, "results": results}
