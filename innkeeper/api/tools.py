"""Tools that a chat may call, in OpenAI's shapes: in bodies, in messages, in answers."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
    tools = tuple(_tool(f"tools[{i}]", tool) for i, tool in enumerate(listed(body)))
    choice, only = _choice(body.get("tool_choice"))
    is_parallel = values.flag("parallel_tool_calls", body.get("parallel_tool_calls", True))
    name_field = "tool_choice.function.name"
    return use(tools, choice, only, is_parallel=is_parallel, name_field=name_field)


def listed(body: Mapping[str, Any]) -> list[Any]:
    """``tools``, unchecked. Raises: InvalidRequestError if it is no list, or too long."""
    given = body.get("tools") or []
    if not isinstance(given, list) or len(given) > _MAX_TOOLS:
        raise values.refuse("tools", f"a list of at most {_MAX_TOOLS} tools", given)
    return given


def use(
    tools: tuple[dict[str, Any], ...],
    choice: str,
    only: str | None,
    *,
    is_parallel: bool,
    name_field: str,
) -> ToolUse | None:
    """What checked ``tools`` are for. choice: none, auto or required. only: the one tool to call.
    name_field: what the client calls that. Raises: InvalidRequestError."""
    if choice == "required" and not tools:
        raise InvalidRequestError(
            "tool_choice asks for a tool call, and tools is empty",
            field="tool_choice",
            hint="send tools, or leave tool_choice out",
        )
    if choice == "none" or not tools:
        return None
    wanted = ToolUse(tools, choice == "required", only, is_parallel and only is None)
    if only is not None and only not in wanted.names:
        raise values.refuse(name_field, "one of " + ", ".join(wanted.names), only)
    return wanted


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
    about = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(about, dict) or tool.get("type", "function") != "function":
        raise values.refuse(field, "an object of type function with function", tool)
    return function(f"{field}.function", about)


def function(field: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """A tool in OpenAI's shape, of its name, description and parameters.

    Raises: InvalidRequestError naming what is wrong below ``field``.
    """
    name, schema = about.get("name"), about.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise values.refuse(f"{field}.name", "letters, digits, _ or -", name)
    if schema is not None and not isinstance(schema, dict):
        raise values.refuse(f"{field}.parameters", "a JSON schema", schema)
    return {"type": "function", "function": values.plain(field, about, max_depth=_MAX_DEPTH)}


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


class WholeCall(NamedTuple):
    """A call as dialects tell it whose arguments are an object."""

    id: str
    name: str
    arguments: dict[str, Any]
    warning: str | None
    """What could not be told: the reply ended within the arguments."""


def objects(deltas: Sequence[CallDelta]) -> list[WholeCall]:
    """The calls that the pieces make, with their arguments read."""
    found = []
    for call in whole_calls(deltas):
        name, written = str(call.function.name), call.function.arguments
        arguments = _object(written)
        warning = None
        if arguments is None:
            warning = f"the reply ended within the arguments of {name}: {values.shown(written)}"
        found.append(WholeCall(str(call.id), name, arguments or {}, warning))
    return found


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
