"""Ollama's fields: ``options``, ``format``, ``think``, ``keep_alive``, and its defaults."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from innkeeper.api import chat, constraints, fields, requests, schema, tools, values
from innkeeper.core import Constraint, GenerateRequest, Message, SamplingParams
from innkeeper.core.request import WHOLE_CONTEXT
from innkeeper.errors import InvalidRequestError

_MAX_PROMPT_CHARS = 64 * 1024 * 1024
_MAX_NAME_CHARS = 1000
_read_text = values.text(_MAX_PROMPT_CHARS)
_MAX_TOP_LOGPROBS = 20
_RANGE = 64
_DEFAULTS: dict[str, Any] = {"temperature": 0.8, "top_k": 40, "top_p": 0.9}

OPTIONS = fields.renamed(
    {
        "max_tokens": "num_predict",
        "temperature": "",
        "top_p": "",
        "min_p": "",
        "top_k": "",
        "typical_p": "",
        "tfs": "tfs_z",
        "repetition_penalty": "repeat_penalty",
        "repetition_penalty_range": "repeat_last_n",
        "presence_penalty": "",
        "frequency_penalty": "",
        "mirostat_mode": "mirostat",
        "mirostat_tau": "",
        "mirostat_eta": "",
        "seed": "",
        "stop": "",
        "truncation_length": "num_ctx",
        "kv_reuse": "",
    }
)
_LOAD_OPTIONS: dict[str, tuple[Any, ...]] = {
    "num_keep": (),
    "num_batch": (),
    "num_gpu": (-1,),
    "main_gpu": (),
    "use_mmap": (True,),
    "num_thread": (),
    "draft_num_predict": (),
    "penalize_newline": (True,),
    "numa": (),
}
_OFF: dict[str, tuple[Any, ...]] = {"template": (), "context": ([],), "shift": ()}
_OPTIONS_SCHEMA = {
    "type": "object",
    "properties": {**schema.properties(OPTIONS), **schema.reported(_LOAD_OPTIONS)},
}
_BODY = {
    "model": schema.plain("string", "a name of the list; loaded if it is not"),
    "stream": schema.plain("boolean", "true unless false: one JSON object a line"),
    "format": {"description": '"json" or a JSON schema'},
    "options": {
        **_OPTIONS_SCHEMA,
        "description": "; ".join(f"{field.names[0]}: {field.about}" for field in OPTIONS),
    },
    "think": {"description": "true, false, low, medium, high or max, for the chat template"},
    "truncate": schema.plain(
        "boolean",
        "false = too long a chat is an error; else its oldest turns are left out, and reported",
    ),
    "keep_alive": {"description": "how long the model stays: 300, 5m; 0 unloads it, -1 keeps it"},
    "logprobs": schema.plain("boolean", "report log probabilities"),
    "top_logprobs": schema.plain("integer", "and this many alternatives per token"),
    "debug": schema.plain("boolean", "show the final prompt and its token ids in the answer"),
    "images": schema.plain("array", "refused: models read text only"),
    **schema.reported(_OFF),
}
TEXT_BODY = schema.body(
    {
        "prompt": schema.plain("string", "the text; empty = only load the model"),
        "raw": schema.plain("boolean", "no chat template"),
        "system": schema.plain("string", "the system message"),
        "suffix": schema.plain("string", "the text behind a gap, which the reply fills"),
        **_BODY,
    },
    ("model",),
)
CHAT_BODY = schema.body(
    {
        "messages": schema.plain("array", "objects with role and content"),
        "tools": schema.plain("array", "functions that the reply may call"),
        **_BODY,
    },
    ("model",),
)

_KNOWN = (
    "model name template context stream format keep_alive images options think truncate shift"
    " logprobs top_logprobs debug"
).split()
_TEXT_KNOWN = frozenset((*_KNOWN, "prompt", "suffix", "system", "raw"))
_CHAT_KNOWN = frozenset((*_KNOWN, "messages", "tools"))
_THINK_LEVELS = ("low", "medium", "high", "max")
_DURATION = re.compile(r"(-?)((?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+|0)")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


class Call(Struct, frozen=True, kw_only=True):
    """One parsed call."""

    request: GenerateRequest
    stream: bool
    is_chat: bool
    is_empty: bool
    """Nothing is to be generated: only load the model, or unload it."""
    suffix: str = ""
    """Text behind a gap that the reply fills; the request's prompt is the text before it."""
    keep_seconds: float | None
    """``keep_alive``: how long the model stays; 0 = it leaves at once, negative = for ever."""


def parse(body: Mapping[str, Any], *, is_chat: bool) -> Call:
    """Raises: InvalidRequestError naming the field."""
    if body.get("images"):
        raise _no_images("images")
    options = body.get("options") or {}
    if not isinstance(options, dict):
        raise values.refuse("options", "an object", options)
    keep_alive = body.get("keep_alive")
    suffix = "" if is_chat else _read_text("suffix", body.get("suffix") or "")
    given = _chat(body) if is_chat else _text(body)
    thinking = _thinking(body.get("think"))
    request = requests.build(
        options,
        table=OPTIONS,
        known=_LOAD_OPTIONS,
        defaults=_DEFAULTS,
        adjust=_adjust,
        warnings=[
            *requests.ignored(options, _LOAD_OPTIONS),
            *requests.ignored(
                body, {**_OFF, "system": ()} if not is_chat and _is_bare(body) else _OFF
            ),
            *fields.unknown(body, _CHAT_KNOWN if is_chat else _TEXT_KNOWN),
        ],
        constraint=_format(body.get("format")),
        logprobs=_logprobs(body),
        template_kwargs=thinking,
        splits_reasoning=True,
        reasoning_budget=0 if thinking.get("enable_thinking") is False else None,
        model=model_name(body),
        debug=values.flag("debug", body.get("debug") or False),
        **given,
    )
    cuts = values.flag("truncate", True if body.get("truncate") is None else body["truncate"])
    request = msgspec.structs.replace(
        request, drops_turns=cuts, truncate_to=request.truncate_to if cuts else None
    )
    return Call(
        request=request,
        stream=values.flag("stream", body.get("stream", True)),
        is_chat=is_chat,
        is_empty=not (request.messages if is_chat else body.get("prompt") or suffix),
        suffix=suffix,
        keep_seconds=None if keep_alive is None else _seconds(keep_alive),
    )


def model_name(body: Mapping[str, Any], field: str = "model") -> str:
    """Raises: InvalidRequestError."""
    name = body.get(field) or body.get("name")
    if not name:
        raise InvalidRequestError(f"{field} is required", field=field)
    text: str = values.text(_MAX_NAME_CHARS)(field, name)
    return text


def _text(body: Mapping[str, Any]) -> dict[str, Any]:
    prompt = _read_text("prompt", body.get("prompt") or "")
    if _is_bare(body):
        return {"prompt": prompt}
    messages = [Message("user", prompt)]
    if body.get("system"):
        messages.insert(0, Message("system", _read_text("system", body["system"])))
    return {"messages": tuple(messages)}


def _is_bare(body: Mapping[str, Any]) -> bool:
    """The prompt is no turn of a chat."""
    return values.flag("raw", body.get("raw") or False) or bool(body.get("suffix"))


def _chat(body: Mapping[str, Any]) -> dict[str, Any]:
    given = body.get("messages")
    use = tools.tool_use({"tools": body.get("tools")})
    if given is None or given == []:
        return {"messages": ()}
    if not isinstance(given, list):
        raise values.refuse("messages", "a list of messages", given)
    for number, message in enumerate(given):
        if isinstance(message, dict) and message.get("images"):
            raise _no_images(f"messages[{number}].images")
    messages = chat.messages({"messages": [_plain(each) for each in given]})
    return {"messages": messages, "tools": use}


def _plain(message: Any) -> Any:
    """OpenAI's names of a message's parts."""
    if not isinstance(message, dict):
        return message
    names = {"thinking": "reasoning_content", "tool_name": "name"}
    return {names.get(name, name): value for name, value in message.items()}


def _no_images(field: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: this model reads text only", field=field)


def _adjust(sampling: SamplingParams, found: Mapping[str, Any]) -> SamplingParams:
    penalty_range = max(WHOLE_CONTEXT, found.get("repetition_penalty_range", _RANGE))
    return msgspec.structs.replace(sampling, penalty_range=penalty_range, xtc_protect=False)


def _format(value: Any) -> Constraint | None:
    if value is None or value == "":
        return None
    if value == "json":
        return constraints.json_object("format")
    if not isinstance(value, dict):
        raise values.refuse("format", '"json" or a JSON schema', value)
    return constraints.json_schema("format", value)


def _thinking(think: Any) -> dict[str, Any]:
    if think is None:
        return {}
    if think in _THINK_LEVELS and isinstance(think, str):
        return {"enable_thinking": True, "reasoning_effort": think}
    return {"enable_thinking": values.flag("think", think)}


def _logprobs(body: Mapping[str, Any]) -> int | None:
    top = values.integer(0, _MAX_TOP_LOGPROBS)("top_logprobs", body.get("top_logprobs") or 0)
    return int(top) if values.flag("logprobs", body.get("logprobs") or False) else None


def _seconds(keep_alive: Any) -> float:
    """Seconds, of a number or a duration such as ``1h30m``."""
    if isinstance(keep_alive, str):
        match = _DURATION.fullmatch(keep_alive)
        if match is None:
            raise values.refuse("keep_alive", 'seconds, or a duration such as "5m"', keep_alive)
        parts = _DURATION_PART.findall(match[2])
        total = sum(float(count) * _UNIT_SECONDS[unit] for count, unit in parts)
        return -total if match[1] else total
    found: float = values.number(-1e18, 1e18)("keep_alive", keep_alive)
    return found
