"""Tools that a chat may call, in OpenAI's shapes: in bodies, in messages, in answers."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, Struct, UnsetType

from innkeeper.api import values
from innkeeper.core import CallDelta, ToolUse
from innkeeper.errors import InvalidRequestError

NAMES = ("tools", "tool_choice", "parallel_tool_calls")
_MAX_TOOLS = 128
_MAX_DEPTH = 64
_NAME = re.compile(r"[a-zA-Z0-9_.:-]{1,128}")
_CHOICES = ("none", "auto", "required")


class Function(Struct, frozen=True):
    arguments: str
    name: str | UnsetType = UNSET


class ToolCall(Struct, frozen=True, kw_only=True):
    """A whole call, or a piece of one; only pieces have an index."""

    index: int | UnsetType = UNSET
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    function: Function


def tool_use(body: Mapping[str, Any]) -> ToolUse | None:
    """What ``tools``, ``tool_choice`` and ``parallel_tool_calls`` ask for.

    Raises: InvalidRequestError naming the field.
    """
    given = body.get("tools") or []
    if not isinstance(given, list) or len(given) > _MAX_TOOLS:
        raise values.refuse("tools", f"a list of at most {_MAX_TOOLS} tools", given)
    tools = tuple(_tool(f"tools[{i}]", tool) for i, tool in enumerate(given))
    choice, only = _choice(body.get("tool_choice"))
    is_parallel = values.flag("parallel_tool_calls", body.get("parallel_tool_calls", True))
    if choice == "required" and not tools:
        raise InvalidRequestError(
            "tool_choice asks for a tool call, and tools is empty",
            field="tool_choice",
            hint="send tools, or leave tool_choice out",
        )
    if choice == "none" or not tools:
        return None
    use = ToolUse(tools, choice == "required", only, is_parallel and only is None)
    if only is not None and only not in use.names:
        raise values.refuse("tool_choice.function.name", "one of " + ", ".join(use.names), only)
    return use


def _choice(value: Any) -> tuple[str, str | None]:
    """(how, the one tool that it names)"""
    if value is None:
        return "auto", None
    if isinstance(value, str) and value in _CHOICES:
        return value, None
    function = value.get("function") if isinstance(value, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        wanted = ", ".join(_CHOICES) + ", or an object of type function with function.name"
        raise values.refuse("tool_choice", wanted, value)
    return "required", name


def _tool(field: str, tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type", "function") != "function":
        raise values.refuse(field, "an object of type function with function", tool)
    name, schema = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise values.refuse(f"{field}.function.name", "letters, digits, _ or -", name)
    if schema is not None and not isinstance(schema, dict):
        raise values.refuse(f"{field}.function.parameters", "a JSON schema", schema)
    plain = values.plain(f"{field}.function", function, max_depth=_MAX_DEPTH)
    return {"type": "function", "function": plain}


def message_calls(field: str, given: Any) -> list[dict[str, Any]]:
    """The calls of a message of the chat so far. Raises: InvalidRequestError."""
    if not isinstance(given, list):
        raise values.refuse(field, "a list of calls", given)
    calls = []
    for number, call in enumerate(given):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise values.refuse(f"{field}[{number}]", "an object with function.name", call)
        calls.append(values.plain(f"{field}[{number}]", call, max_depth=_MAX_DEPTH))
    return calls


def pieces(deltas: Sequence[CallDelta]) -> list[ToolCall]:
    """What a stream tells of calls."""
    return [
        ToolCall(
            index=delta.index,
            id=delta.id or UNSET,
            type="function" if delta.id else UNSET,
            function=Function(delta.arguments, delta.name or UNSET),
        )
        for delta in deltas
    ]


def whole_calls(deltas: Sequence[CallDelta]) -> list[ToolCall]:
    """The calls that the pieces make."""
    heads = [delta for delta in deltas if delta.name is not None]
    return [
        ToolCall(
            id=head.id or "",
            type="function",
            function=Function(
                "".join(delta.arguments for delta in deltas if delta.index == head.index),
                head.name or "",
            ),
        )
        for head in heads
    ]
