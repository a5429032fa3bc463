"""Oobabooga's ``/v1/internal`` routes: tokens, models, logits."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from innkeeper.api import schema, values
from innkeeper.api.openai import json_response
from innkeeper.api.standing import Standing, Template, template
from innkeeper.api.stream import read_json, unless_client_leaves
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Generate, Models, Overrides, lora_names

_MAX_TEXT_CHARS = 16 * 1024 * 1024
_MAX_TOP = 1000
_read_text = values.text(_MAX_TEXT_CHARS)
_KV_TYPES = frozenset("f32 f16 bf16 q8_0 q5_1 q5_0 q4_1 q4_0 iq4_nl".split())
_TEXT_BODY = schema.body({"text": {"type": "string"}}, ("text",))
_ALL_LAYERS = 10_000
_SETTINGS = ("instruction_template", "instruction_template_str")
_LOADERS = {"llama_cpp": "llama.cpp"}


def router(generate: Generate, models: Models, standing: Standing) -> APIRouter:
    """``/v1/internal/...``."""
    routes = APIRouter(prefix="/v1/internal", tags=["Oobabooga"])
    _add_tokens(routes, generate)
    _add_generation(routes, generate, standing)
    _add_models(routes, models, standing)
    return routes


def _add_tokens(routes: APIRouter, generate: Generate) -> None:
    @routes.post("/encode", summary="Token ids of a text", openapi_extra=_TEXT_BODY)
    async def encode(request: Request) -> Response:
        tokens = await _tokens(generate, await read_json(request))
        return json_response({"tokens": tokens, "length": len(tokens)})

    @routes.post("/token-count", summary="Number of tokens of a text", openapi_extra=_TEXT_BODY)
    async def count(request: Request) -> Response:
        return json_response({"length": len(await _tokens(generate, await read_json(request)))})

    @routes.post(
        "/decode",
        summary="Text of token ids",
        openapi_extra=schema.body({"tokens": {"type": "array"}}, ("tokens",)),
    )
    async def decode(request: Request) -> Response:
        body = await read_json(request)
        tokens = values.token_ids("tokens", _required(body, "tokens"))
        return json_response({"text": await generate.detokenize(tokens)})


async def _tokens(generate: Generate, body: Mapping[str, Any]) -> tuple[int, ...]:
    """Without BOS unless asked: clients add up the counts of single messages."""
    text = _read_text("text", _required(body, "text"))
    add_special = values.flag("add_bos_token", body.get("add_bos_token") or False)
    return await generate.tokenize(text, add_special=add_special)


def _add_generation(routes: APIRouter, generate: Generate, standing: Standing) -> None:
    @routes.post(
        "/logits",
        summary="Probabilities of the next token",
        openapi_extra=schema.body(
            {
                "prompt": schema.PROMPT,
                "use_samplers": {"type": "boolean"},
                "top_logits": {"type": "integer"},
                **schema.SAMPLING,
            },
            ("prompt",),
        ),
    )
    async def logits(request: Request) -> Response:
        body = await read_json(request)
        probe = generate.probe(
            standing.completion(body).requests[0],
            use_samplers=values.flag("use_samplers", body.get("use_samplers") or False),
            top=values.integer(1, _MAX_TOP)("top_logits", body.get("top_logits", 50)),
        )
        best: dict[str, float] = {}
        for _, text, probability in await unless_client_leaves(request.receive, probe):
            best[text] = best.get(text, 0.0) + probability
        return json_response(best)

    @routes.post(
        "/why",
        summary="The candidates for the next token behind every sampling step",
        openapi_extra=schema.body(
            {
                "prompt": schema.PROMPT,
                "messages": schema.plain("array", "a chat, instead of prompt"),
                "top_logits": {"type": "integer"},
                **schema.SAMPLING,
            },
            (),
        ),
    )
    async def why(request: Request) -> Response:
        body = await read_json(request)
        if body.get("messages"):
            wanted = standing.chat(body).request
        else:
            wanted = standing.completion(body).requests[0]
        top = values.integer(1, _MAX_TOP)("top_logits", body.get("top_logits", 10))
        trace = generate.trace(wanted, top=top)
        return json_response(
            [
                {
                    "step": step.name,
                    "num_left": step.num_left,
                    "tokens": [
                        {"id": i, "text": text, "probability": p} for i, text, p in step.tokens
                    ],
                }
                for step in await unless_client_leaves(request.receive, trace)
            ]
        )

    @routes.post(
        "/chat-prompt", summary="A chat as the model sees it", openapi_extra=schema.CHAT_BODY
    )
    async def chat_prompt(request: Request) -> Response:
        call = standing.chat(await read_json(request))
        return json_response({"prompt": await generate.render(call.request)})

    @routes.post("/stop-generation", summary="Stop all replies")
    async def stop_generation() -> Response:
        generate.stop_all()
        return json_response("OK")


def _add_models(routes: APIRouter, models: Models, standing: Standing) -> None:
    @routes.get("/health", summary="Whether the server answers")
    async def health() -> Response:
        return json_response({"status": "ok"})

    @routes.get("/model/info", summary="The loaded model's name")
    async def info() -> Response:
        facts = models.facts
        loader = _LOADERS.get(facts.backend, facts.backend) if facts else None
        name = facts.name if facts else "None"
        loras = lora_names(facts)
        return json_response({"model_name": name, "lora_names": loras, "loader": loader})

    @routes.get("/model/list", summary="Models that can be loaded")
    async def names() -> Response:
        return json_response({"model_names": [entry.name for entry in models.entries()]})

    @routes.post(
        "/model/load",
        summary="Load a model of the list; answers when it is ready",
        openapi_extra=schema.body(
            {
                "model_name": schema.plain("string", "a name of the list"),
                "args": schema.plain("object", "loader arguments, such as ctx_size"),
                "instruction_template": schema.plain("string", "an instruct format's name"),
                "instruction_template_str": schema.plain("string", "a chat template"),
            },
            ("model_name",),
        ),
    )
    async def load(request: Request) -> Response:
        body = await read_json(request)
        name = values.text(1000)("model_name", _required(body, "model_name"))
        chosen = _template(body)
        job = models.start_load(name, overrides(body.get("args") or {}))
        standing.set_template_after(job, chosen)
        await job.wait()
        return json_response("OK")

    @routes.post("/model/unload", summary="Unload the model")
    async def unload() -> Response:
        await models.unload()
        return json_response("OK")


def _template(body: Mapping[str, Any]) -> Template | None:
    """The template that a load asks for, also in ``settings``, as earlier versions had it.

    Raises: InvalidRequestError for settings that there are none of.
    """
    settings = body.get("settings") or {}
    if not isinstance(settings, dict) or set(settings) - set(_SETTINGS):
        raise values.refuse("settings", "an object of " + ", ".join(_SETTINGS), settings)
    return template(*(body.get(field) or settings.get(field) for field in _SETTINGS))


def _required(body: Mapping[str, Any], name: str) -> Any:
    if body.get(name) is None:
        raise InvalidRequestError(f"{name} is missing", field=name)
    return body[name]


def _kv_type(field: str, value: Any) -> str:
    name = {"fp16": "f16", "fp32": "f32"}.get(value, value) if isinstance(value, str) else None
    if name not in _KV_TYPES:
        raise values.refuse(field, "one of " + ", ".join(sorted(_KV_TYPES)), value)
    return str(name)


def _shares(field: str, value: Any) -> tuple[float, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list):
        raise values.refuse(field, 'shares of the GPUs, such as "60,40"', value)
    read = values.number(0, 1e6)
    return tuple(read(field, item) for item in items)


def _not(field: str, value: Any) -> bool:
    return not values.flag(field, value)


def _all_or_auto(field: str, value: Any) -> int:
    return _ALL_LAYERS if values.flag(field, value) else -1


_ARGS: tuple[tuple[str, str, values.Reader], ...] = (
    ("ctx_size n_ctx max_seq_len", "num_ctx", values.integer(16, 1 << 24)),
    ("gpu_layers n_gpu_layers", "num_gpu_layers", values.integer(-1, 10_000)),
    ("parallel", "max_sequences", values.integer(1, 64)),
    ("threads", "num_threads", values.integer(0, 1024)),
    ("ubatch_size", "max_ubatch", values.integer(1, 1 << 16)),
    ("cache_type cache_type_k", "kv_type_k", _kv_type),
    ("cache_type cache_type_v", "kv_type_v", _kv_type),
    ("tensor_split", "tensor_split", _shares),
    ("cpu_moe", "num_cpu_experts", _all_or_auto),
    ("no_mmap", "mmap", _not),
    ("mlock", "mlock", values.flag),
)
"""Loader arguments by Oobabooga's names. Others are ignored; none can run code."""


def overrides(args: Any, *, called: Mapping[str, str] | None = None) -> Overrides:
    """Loader arguments. called: their names in errors, if not those below ``args``.

    Raises: InvalidRequestError.
    """
    if not isinstance(args, dict):
        raise values.refuse("args", "an object", args)
    found = {}
    for names, target, read in _ARGS:
        for name in names.split():
            if args.get(name) is not None:
                found[target] = read((called or {}).get(name, f"args.{name}"), args[name])
    return Overrides(**found)
