"""llama-server's own routes: ``/completion``, tokens, templates.

Its off values differ from Oobabooga's: a penalty range of 0 switches the penalties off, and the
steps that ``samplers`` leaves out do not apply. Its streams end without ``[DONE]``.
"""

import contextlib
import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import APIRouter, Request
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from innkeeper.api import chat, completions, fields, requests, schema, values
from innkeeper.api.infill import fill_prompt
from innkeeper.api.openai import json_response
from innkeeper.api.replies import (
    Choice,
    Totals,
    collect,
    debug_of,
    generate_all,
    json_bytes,
    piece_text,
)
from innkeeper.api.sampler_order import llama_order
from innkeeper.api.stream import EventStream, event, read_json, unless_client_leaves
from innkeeper.core import GenerateRequest, SamplingParams, TokenLogprob
from innkeeper.core.frames import Delta, Finished
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.errors import InvalidRequestError
from innkeeper.serving import Generate

_RANGE = 64
_DEFAULTS: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repetition_penalty_range": _RANGE,
    "dry_penalty_last_n": _RANGE,
}
_OFF: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys("n_keep n_indent n_cache_reuse t_max_predict_ms lora".split(), ()),
    **dict.fromkeys("return_progress grammar_lazy echo verbose".split(), ()),
    **dict.fromkeys("reasoning_budget_message reasoning_control backend_sampling".split(), ()),
    "response_fields": (),
    **dict.fromkeys(("n_discard", "reasoning_budget_tokens"), (-1,)),
    "reasoning_format": ("auto", "none"),
}
_KNOWN = (
    *_OFF,
    *("id_slot", "return_tokens", "sse_ping_interval", "timings_per_token", "n_cmpl"),
    *("grammar_triggers", "preserved_tokens", "post_sampling_probs"),
)
_FIELDS = {
    "stream": schema.plain("boolean", "answer with server-sent events"),
    "model": schema.plain("string", "a name of /v1/models, loaded if need be"),
    "n_cmpl": schema.plain("integer", "number of replies"),
    "n_probs": schema.plain("integer", "report this many alternatives per token"),
    "logprobs": schema.plain("integer", "alias of n_probs"),
    "post_sampling_probs": schema.plain("boolean", "those of what was drawn from"),
    "return_tokens": schema.plain("boolean", "token ids beside the text"),
    "debug": schema.plain("boolean", "show the final prompt and its token ids in the answer"),
    **schema.SAMPLING,
    **schema.reported(_OFF),
}
_BODY = schema.body(
    {"prompt": {"description": "text, ids, both in a list, or several prompts"}, **_FIELDS},
    ("prompt",),
)

_INFILL = ("input_prefix", "input_suffix", "input_extra")
_INFILL_BODY = schema.body(
    {
        "input_prefix": schema.plain("string", "the text before the gap"),
        "input_suffix": schema.plain("string", "the text behind it"),
        "input_extra": schema.plain("array", "other files: objects with filename and text"),
        "prompt": schema.plain("string", "the beginning of what fills it"),
        **_FIELDS,
    },
    ("input_prefix", "input_suffix"),
)
_MAX_TEXT_CHARS = 16 * 1024 * 1024


class Call(Struct, frozen=True, kw_only=True):
    """One parsed call."""

    requests: tuple[GenerateRequest, ...]
    is_list: bool
    """Several prompts were given, so the answer is a list."""
    stream: bool
    with_probabilities: bool
    after_sampling: bool
    """Those are of what was drawn from, and no logarithms."""
    with_tokens: bool


class TopProbability(Struct, frozen=True):
    id: int
    token: str
    bytes: list[int]
    logprob: float


class Probability(Struct, frozen=True):
    """One token; ``content`` is the older name of ``token``."""

    id: int
    token: str
    content: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[TopProbability]


class Chunk(Struct, frozen=True, kw_only=True):
    """One event before the last."""

    index: int
    content: str
    tokens: list[int]
    stop: bool = False
    id_slot: int = -1
    tokens_predicted: int
    tokens_evaluated: int = 0
    completion_probabilities: list[Probability] | list[dict[str, Any]] | UnsetType = UNSET


def router(generate: Generate) -> APIRouter:
    """``/completion``, ``/tokenize``, ``/detokenize``, ``/apply-template``."""
    routes = APIRouter(tags=["llama-server"])

    @routes.post("/completion", summary="Continue a text", openapi_extra=_BODY)
    @routes.post("/completions", include_in_schema=False)
    async def complete(request: Request) -> Response:
        body = await read_json(request)
        call = parse({**body, "prompt": await _prompt(body, generate)})
        if call.stream:
            return EventStream(_pieces(call, generate), last=event)
        return json_response(await unless_client_leaves(request.receive, _answer(call, generate)))

    @routes.post(
        "/apply-template", summary="A chat as the model sees it", openapi_extra=schema.CHAT_BODY
    )
    async def apply_template(request: Request) -> Response:
        call = chat.parse(await read_json(request))
        return json_response({"prompt": await generate.render(call.request)})

    @routes.post("/infill", summary="Fill the gap in a text", openapi_extra=_INFILL_BODY)
    async def infill(request: Request) -> Response:
        body = await read_json(request)
        plain = {name: value for name, value in body.items() if name not in _INFILL}
        call = parse({**plain, "prompt": await _infill_prompt(body, generate)})
        if call.stream:
            return EventStream(_pieces(call, generate), last=event)
        return json_response(await unless_client_leaves(request.receive, _answer(call, generate)))

    return routes


async def _infill_prompt(body: Mapping[str, Any], generate: Generate) -> list[int]:
    """Raises: InvalidRequestError; as ``fill_prompt``."""
    read = values.text(_MAX_TEXT_CHARS)
    if body.get("input_prefix") is None and body.get("input_suffix") is None:
        raise InvalidRequestError("input_prefix is missing", field="input_prefix")
    before = read("input_prefix", body.get("input_prefix") or "")
    before = _extra(body.get("input_extra")) + before + read("prompt", body.get("prompt") or "")
    behind = read("input_suffix", body.get("input_suffix") or "")
    model = requests.model(body)
    found = await fill_prompt(before, behind, model=model, field="input_suffix", generate=generate)
    return list(found)


def _extra(given: Any) -> str:
    """Other files' texts, before the one with the gap. Raises: InvalidRequestError."""
    if given is None:
        return ""
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise values.refuse("input_extra", "a list of objects with filename and text", given)
    read = values.text(_MAX_TEXT_CHARS)
    return "".join(
        f"{read('input_extra.filename', each.get('filename') or '')}\n"
        f"{read('input_extra.text', each.get('text'))}\n\n"
        for each in given
    )


def parse(body: Mapping[str, Any]) -> Call:
    """Raises: InvalidRequestError naming the field."""
    found = fields.resolve(body)
    names = found.get("sampler_priority", ())
    order, odd = llama_order(names)
    last = ["not applied: temperature_last (samplers says the order)"]
    odd = (*odd, *(last if names and found.get("temperature_last") else ()))
    with_tokens = values.flag("return_tokens", body.get("return_tokens") or False)
    logprobs = completions.num_logprobs(body) or None
    after = values.flag("post_sampling_probs", body.get("post_sampling_probs") or False)
    request = requests.build(
        {"n": body.get("n_cmpl"), **{k: v for k, v in body.items() if k != "samplers"}},
        known=_KNOWN,
        defaults=_DEFAULTS,
        adjust=_adjust,
        logprobs=logprobs if logprobs or not with_tokens else 0,
        logprobs_after=after,
        warnings=[*requests.ignored(body, _OFF), *odd],
    )
    if names and not body.get("preset"):
        sampling = msgspec.structs.replace(request.sampling, order=order)
        request = msgspec.structs.replace(request, sampling=sampling)
    prompt = body.get("prompt")
    return Call(
        requests=completions.with_prompts(request, completions.prompts(body)),
        is_list=request.n > 1 or (isinstance(prompt, list) and isinstance(prompt[0], str | list)),
        stream=values.flag("stream", body.get("stream") or False),
        with_probabilities=logprobs is not None,
        after_sampling=after,
        with_tokens=with_tokens,
    )


def _adjust(sampling: SamplingParams, found: Mapping[str, Any]) -> SamplingParams:
    """0 as a range is nothing, -1 (of older servers) everything."""
    return msgspec.structs.replace(
        sampling,
        penalty_range=max(WHOLE_CONTEXT, found["repetition_penalty_range"]),
        dry_range=max(WHOLE_CONTEXT, found["dry_penalty_last_n"]),
        xtc_protect=False,
    )


async def _prompt(body: Mapping[str, Any], generate: Generate) -> Any:
    """As OpenAI has it: ``{prompt_string}`` is its text, a list of texts and ids is ids."""
    prompt = body.get("prompt")
    if isinstance(prompt, dict):
        if prompt.get("multimodal_data"):
            raise InvalidRequestError(
                "prompt.multimodal_data: this model reads text only", field="prompt"
            )
        return prompt.get("prompt_string")
    if not isinstance(prompt, list) or len({type(each) is int for each in prompt}) < 2:
        return prompt
    return [token for part in prompt for token in await _tokens_of(part, body, generate)]


async def _tokens_of(part: Any, body: Mapping[str, Any], generate: Generate) -> Sequence[int]:
    if isinstance(part, int):
        return [part]
    if not isinstance(part, str):
        raise values.refuse("prompt", "text and token ids", part)
    return await generate.tokenize(part, model=requests.model(body))


async def _answer(call: Call, generate: Generate) -> Any:
    totals = Totals(call.requests[0].n)
    answers = []
    for choice in await collect(generate_all(generate, call.requests)):
        assert choice.finished is not None
        totals.add(choice.finished)
        answers.append(_whole(choice, choice.finished, call, generate))
    return answers if call.is_list else answers[0]


async def _pieces(call: Call, generate: Generate) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(generate_all(generate, call.requests)) as events:
        async for each in events:
            if isinstance(each, Delta):
                yield event(json_bytes(_chunk(each, call)))
            else:
                last = _last(each, call, generate)
                yield event(json_bytes({**last, "content": "", "tokens": []}))


def _chunk(delta: Delta, call: Call) -> Chunk:
    return Chunk(
        index=delta.index,
        content=delta.text,
        tokens=[entry.token_id for entry in delta.logprobs] if call.with_tokens else [],
        tokens_predicted=delta.num_tokens,
        completion_probabilities=_probabilities(delta.logprobs, call)
        if call.with_probabilities and delta.logprobs
        else UNSET,
    )


def _whole(choice: Choice, finished: Finished, call: Call, generate: Generate) -> dict[str, Any]:
    tokens = [entry.token_id for entry in choice.logprobs] if call.with_tokens else []
    whole = {**_last(finished, call, generate), "content": choice.text, "tokens": tokens}
    whole["has_new_line"] = "\n" in choice.text
    if call.with_probabilities:
        whole["completion_probabilities"] = _probabilities(choice.logprobs, call)
    return whole


def _last(finished: Finished, call: Call, generate: Generate) -> dict[str, Any]:
    """What is said of a reply at its end, without its text."""
    timings = finished.timings
    request = call.requests[finished.index // call.requests[0].n]
    facts = generate.models.facts_of(request.model)
    num_cached = timings.cache_n + timings.cache_approx_n
    totals = Totals(1)
    totals.add(finished)
    return {
        "index": finished.index,
        "id_slot": -1,
        "stop": True,
        "model": facts.name if facts else "",
        "tokens_predicted": timings.predicted_n,
        "tokens_evaluated": timings.prompt_n + num_cached,
        "tokens_cached": num_cached,
        "generation_settings": _settings(request, facts.num_ctx if facts else 0),
        "prompt": request.prompt if isinstance(request.prompt, str) else "",
        "truncated": finished.truncated_n > 0,
        "stop_type": _stop_type(finished),
        "stopping_word": finished.stop_text or "",
        "timings": {
            **totals.timings(),
            "prompt_per_token_ms": timings.prompt_ms / max(1, timings.prompt_n),
            "predicted_per_token_ms": timings.predicted_ms / max(1, timings.predicted_n),
        },
        "warnings": finished.warnings,
        **debug_of(finished),
    }


def _settings(request: GenerateRequest, num_ctx: int) -> dict[str, Any]:
    sampling = msgspec.structs.asdict(request.sampling)
    del sampling["logit_bias"]
    limit = -1 if request.max_tokens is None else request.max_tokens
    more = {"n_ctx": num_ctx, "n_predict": limit, "max_tokens": limit, "stop": request.stop}
    return {**sampling, **more, "samplers": sampling["order"], "n_probs": request.logprobs or 0}


def _stop_type(finished: Finished) -> str:
    if finished.reason == "stop":
        return "eos" if finished.stop_text is None else "word"
    return "limit" if finished.reason == "length" else "none"


def _probabilities(
    entries: Sequence[TokenLogprob], call: Call
) -> list[Probability] | list[dict[str, Any]]:
    if call.after_sampling:
        return [
            {
                **_probability(entry.token_id, entry.piece, entry.logprob),
                "top_probs": [_probability(*each) for each in entry.top],
            }
            for entry in entries
        ]
    return [
        Probability(
            entry.token_id,
            text := piece_text(entry.piece),
            text,
            list(entry.piece),
            entry.logprob,
            [TopProbability(i, piece_text(p), list(p), lp) for i, p, lp in entry.top],
        )
        for entry in entries
    ]


def _probability(token_id: int, piece: bytes, logprob: float) -> dict[str, Any]:
    shown = {"id": token_id, "token": piece_text(piece), "bytes": list(piece)}
    return {**shown, "prob": math.exp(logprob)}
