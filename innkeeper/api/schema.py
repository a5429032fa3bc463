"""Request bodies for the OpenAPI document, made from the table of fields."""

from typing import Any

from innkeeper.api.constraints import FORMS
from innkeeper.api.fields import FIELDS, NOT_APPLIED, Field

Schema = dict[str, Any]


def _property(field: Field, name: str) -> Schema:
    about = field.about if name == field.target else f"alias of {field.target}"
    return {"type": field.kind, "description": about}


def _properties(fields: tuple[Field, ...], suffix: str = "") -> Schema:
    found = {name: _property(field, name) for field in fields for name in field.names}
    for each in found.values():
        each["description"] += suffix
    return found


def _plain(kind: str, about: str) -> Schema:
    return {"type": kind, "description": about}


def body(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    """``openapi_extra`` of a route that takes one JSON object."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": properties,
                        "required": list(required),
                    }
                }
            },
        }
    }


SAMPLING = {
    **_properties(FIELDS),
    **_properties(NOT_APPLIED, " (not supported yet: reported in warnings)"),
    **{name: _plain(form.kind, form.about) for form in FORMS for name in form.names},
}

_STREAMING = {
    "stream": _plain("boolean", "answer with server-sent events"),
    "stream_options": _plain("object", "include_usage: usage in a last event"),
    "model": _plain("string", "ignored: the loaded model answers"),
}

PROMPT = {"description": "text, token ids, or a list of either"}

COMPLETION_BODY = body(
    {
        "prompt": PROMPT,
        **_STREAMING,
        "echo": _plain("boolean", "begin the reply with the prompt"),
        "logprobs": _plain("integer", "report this many alternatives per token"),
        "n_probs": _plain("integer", "alias of logprobs, 0 = none"),
        **SAMPLING,
    },
    ("prompt",),
)

CHAT_BODY = body(
    {
        "messages": _plain("array", "objects with role and content"),
        **_STREAMING,
        "logprobs": _plain("boolean", "report log probabilities"),
        "top_logprobs": _plain("integer", "and this many alternatives per token"),
        "continue_": _plain("boolean", "go on with the last message, the assistant's"),
        "chat_template_kwargs": _plain("object", "variables for the chat template"),
        "enable_thinking": _plain("boolean", "variable for the chat template"),
        "reasoning_effort": _plain("string", "variable for the chat template"),
        "preserve_thinking": _plain("boolean", "variable for the chat template"),
        **SAMPLING,
    },
    ("messages",),
)
