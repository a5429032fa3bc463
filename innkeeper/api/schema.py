"""Request bodies for the OpenAPI document, made from the table of fields."""

from collections.abc import Iterable
from typing import Any

from innkeeper.api.constraints import FORMS
from innkeeper.api.fields import FIELDS, NOT_APPLIED, Field
from innkeeper.api.reasoning import BUDGETS

Schema = dict[str, Any]


def _property(field: Field, name: str) -> Schema:
    about = field.about if name == field.names[0] else f"alias of {field.names[0]}"
    return {"type": field.kind, "description": about}


def properties(fields: tuple[Field, ...], suffix: str = "") -> Schema:
    """Properties for every name in a table."""
    found = {name: _property(field, name) for field in fields for name in field.names}
    for each in found.values():
        each["description"] += suffix
    return found


def plain(kind: str, about: str) -> Schema:
    """One property."""
    return {"type": kind, "description": about}


def reported(names: Iterable[str]) -> Schema:
    """Properties of fields that are known, and not applied."""
    return {name: {"description": "reported in warnings: not supported yet"} for name in names}


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


_REPORTED = " (not supported yet: reported in warnings)"


def sampling(table: tuple[Field, ...]) -> Schema:
    """The fields of ``table``, what is not applied yet, and what restricts the reply's form."""
    return {
        **properties(table),
        **properties(NOT_APPLIED, _REPORTED),
        **{name: plain(form.kind, form.about) for form in FORMS for name in form.names},
    }


SAMPLING = sampling(FIELDS)

_STREAMING = {
    "stream": plain("boolean", "answer with server-sent events"),
    "stream_options": plain("object", "include_usage: usage in a last event"),
    "model": plain("string", "a name of /v1/models, loaded if need be; without it the current one"),
    "debug": plain("boolean", "show the final prompt and its token ids in the answer"),
}

TRUNCATION = plain(
    "string",
    "auto leaves the oldest turns of a chat that is too long out, which is reported; disabled"
    " refuses it; absent = as the server is set",
)

PROMPT = {"description": "text, token ids, or a list of either"}

COMPLETION_BODY = body(
    {
        "prompt": PROMPT,
        **_STREAMING,
        "echo": plain("boolean", "begin the reply with the prompt"),
        "logprobs": plain("integer", "report this many alternatives per token"),
        "n_probs": plain("integer", "alias of logprobs, 0 = none"),
        **SAMPLING,
    },
    ("prompt",),
)

REASONING = {
    **{name: plain("integer", "most tokens of reasoning; 0 = none") for name in BUDGETS},
    "enable_thinking": plain("boolean", "variable for the chat template"),
    "reasoning_effort": plain("string", "variable for the chat template; none = off"),
    "preserve_thinking": plain("boolean", "variable for the chat template"),
    "thinking": plain("object", "type: enabled, adaptive or disabled; budget_tokens"),
    "reasoning": plain("object", "effort, enabled, max_tokens, exclude"),
    "reasoning_format": plain("string", "none leaves reasoning in the text"),
    "include_reasoning": plain("boolean", "false leaves reasoning out of the answer"),
}
_TOOLS = {
    "tools": plain("array", "functions that the reply may call"),
    "tool_choice": {"description": "none, auto, required, or an object with function.name"},
    "parallel_tool_calls": plain("boolean", "more than one call may come"),
}
_TEMPLATE = {
    "chat_template": plain("string", "Jinja in place of the model's own"),
    "instruction_template_str": plain("string", "alias of chat_template"),
    "chat_template_kwargs": plain("object", "variables for the chat template"),
    "continue_": plain("boolean", "go on with the last message, the assistant's"),
    "continue_final_message": plain("boolean", "alias of continue_"),
    "instruction_template": plain("string", "an instruct format by its name"),
}
_PLAY = {
    "mode": plain("string", "instruct; chat = lines of a play; chat-instruct = told to write one"),
    "character": plain("string", "a card of the characters folder, in a play"),
    "name1": plain("string", "who the user is, in a play"),
    "name2": plain("string", "who the model is, in a play"),
    "context": plain("string", "what comes before the play"),
    "greeting": plain("string", "the play's first line, the model's"),
    "user_bio": plain("string", "about the user, in a play"),
    "chat_template_str": plain("string", "Jinja for the lines of mode chat"),
    "chat_instruct_command": plain("string", "what mode chat-instruct tells the model"),
}

CHAT_BODY = body(
    {
        "messages": plain("array", "objects with role and content"),
        **_STREAMING,
        "logprobs": plain("boolean", "report log probabilities"),
        "top_logprobs": plain("integer", "and this many alternatives per token"),
        "truncation": TRUNCATION,
        **SAMPLING,
        **_TEMPLATE,
        **REASONING,
        **_TOOLS,
        **_PLAY,
    },
    ("messages",),
)
