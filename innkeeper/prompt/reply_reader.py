"""A chat reply taken apart while it grows: reasoning, text, tool calls.

What cannot be told yet (the beginning of a mark, blanks before one) is held back. What looked like
a call and is none comes as text: nothing of a reply is ever lost.
"""

import json
import re
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from innkeeper.core import CallDelta, ReplyForm
from innkeeper.prompt.tool_formats import ARGS_MARK, FORMATS, ToolFormat

_PYTHON_TAG = "<|python_tag|>"
_MAX_NAME_CHARS = 200
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ID_CHARS, _ID_LETTERS = 9, string.ascii_letters + string.digits
"""The only kind of id that every template takes back."""


@dataclass
class Parts:
    """What is new of a reply."""

    text: str = ""
    reasoning: str = ""
    calls: list[CallDelta] = field(default_factory=list)


def new_call_id() -> str:
    """A random id of a tool call."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_CHARS))


class ReplyReader:
    """One reply. ``num_calls`` counts the calls that have begun."""

    def __init__(self, form: ReplyForm) -> None:
        self.num_calls = 0
        self._form = form
        self._format = FORMATS.get(form.tool_format)
        self._buffer = form.opening
        self._parts = Parts()
        self._is_last = False
        self._scan = _ObjectScan()
        self._has_reasoned = False
        if form.in_reasoning:
            self._state: Callable[[], bool] = self._reasoning
        else:
            self._state = self._beginning if form.reasoning[0] else self._after_reasoning()

    def push(self, text: str) -> Parts:
        """Adds ``text``; returns what can be told now."""
        self._parts = Parts()
        self._buffer += text
        while self._state():
            pass
        return self._parts

    def finish(self) -> Parts:
        """What was held back, once nothing more comes."""
        self._is_last = True
        return self.push("")

    # Each state takes from the buffer what it can, and says whether to go on at once.

    def _beginning(self) -> bool:
        mark = self._form.reasoning[0]
        bare = self._buffer.lstrip()
        if bare.startswith(mark):
            self._buffer = bare[len(mark) :]
            return self._go(self._reasoning)
        if mark.startswith(bare) and not self._is_last:
            return False
        return self._go(self._after_reasoning())

    def _reasoning(self) -> bool:
        if not self._has_reasoned:
            self._buffer = self._buffer.lstrip()
        text, is_found = self._before(self._form.reasoning[1])
        self._parts.reasoning += text
        self._has_reasoned = self._has_reasoned or bool(text)
        return is_found and self._go(self._behind_reasoning)

    def _behind_reasoning(self) -> bool:
        self._buffer = self._buffer.lstrip()
        return bool(self._buffer) and self._go(self._after_reasoning())

    def _after_reasoning(self) -> Callable[[], bool]:
        if self._format is None:
            return self._rest
        return self._text if self._format.opening else self._bare_call

    def _rest(self) -> bool:
        self._parts.text += self._buffer
        self._buffer = ""
        return False

    def _text(self) -> bool:
        assert self._format is not None
        text, is_found = self._before(self._format.opening)
        self._parts.text += text
        return is_found and self._go(self._call)

    def _bare_call(self) -> bool:
        """The whole reply is a call, or none of it is."""
        bare = self._buffer.lstrip().removeprefix(_PYTHON_TAG).lstrip()
        if bare.startswith("{"):
            self._buffer = bare
            return self._go(self._call)
        if (not bare or _PYTHON_TAG.startswith(bare)) and not self._is_last:
            return False
        return self._go(self._rest)

    def _call(self) -> bool:
        assert self._format is not None
        bare = self._buffer.lstrip(" \n[," if self._format.is_list else " \n")
        head = _read_head(bare, self._format)
        if head is None or (head.end < 0 and self._is_last):
            return self._go(self._other_call)
        if head.end < 0:
            return False
        if head.name not in self._form.tool_names:
            return self._go(self._other_call)
        self._begin(head.name)
        self._buffer = bare[head.end :]
        self._scan = _ObjectScan()
        return self._go(self._arguments)

    def _other_call(self) -> bool:
        """A call with its keys in another order; or no call at all, which is text."""
        assert self._format is not None
        closing = self._format.closing
        if closing and closing not in self._buffer and not self._is_last:
            return False
        inside, mark, rest = (self._buffer, "", "")
        if closing:
            inside, mark, rest = self._buffer.partition(closing)
        named = _parse(inside, self._format.arguments)
        if named is None or named[0] not in self._form.tool_names:
            self._parts.text += self._format.opening + inside + mark
        else:
            self._begin(named[0])
            self._parts.calls.append(CallDelta(self.num_calls - 1, named[1]))
        self._buffer = rest
        return self._go(self._text if self._format.opening else self._rest)

    def _begin(self, name: str) -> None:
        self._parts.calls.append(CallDelta(self.num_calls, id=new_call_id(), name=name))
        self.num_calls += 1

    def _arguments(self) -> bool:
        end = self._scan.read(self._buffer)
        text = self._buffer if end is None else self._buffer[:end]
        if text:
            self._parts.calls.append(CallDelta(self.num_calls - 1, text))
        self._buffer = self._buffer[len(text) :]
        return end is not None and self._go(self._behind_call)

    def _behind_call(self) -> bool:
        """The brace that ends the call, and the mark behind it."""
        assert self._format is not None
        bare = self._buffer.lstrip()
        bare = bare[1:].lstrip() if bare.startswith("}") else bare
        closing = self._format.closing
        if not self._is_last and (not bare or (closing != bare and closing.startswith(bare))):
            return False
        self._buffer = bare.removeprefix(closing) if closing else bare
        if self._format.is_list and bare.startswith(","):
            return self._go(self._call)
        if self._format.is_list:
            self._buffer = bare.removeprefix("]")
        elif not self._format.opening:
            self._buffer = bare.lstrip("; \n")
            return self._go(self._bare_call)
        return self._go(self._text)

    def _go(self, state: Callable[[], bool]) -> bool:
        self._state = state
        return True

    def _before(self, mark: str) -> tuple[str, bool]:
        """Takes what comes before ``mark``, and the mark if it is there. Blanks at the end are
        held back: those before a mark belong to neither side."""
        place = self._buffer.find(mark)
        if place >= 0:
            text, self._buffer = self._buffer[:place].rstrip(), self._buffer[place + len(mark) :]
            return text, True
        end = len(self._buffer)
        if not self._is_last:
            starts = range(max(0, end - len(mark) + 1), end)
            end = next((i for i in starts if mark.startswith(self._buffer[i:])), end)
            end = len(self._buffer[:end].rstrip())
        elif self.num_calls:
            end = len(self._buffer.rstrip())
        text = self._buffer[:end]
        self._buffer = "" if self._is_last else self._buffer[end:]
        return text, False


class _Head(NamedTuple):
    """What stands before the arguments of a call."""

    name: str
    end: int
    """Where they begin; -1 = the text ends before that."""


def _read_head(text: str, form: ToolFormat) -> _Head | None:
    """None if no call in ``form`` begins so."""
    if form.arguments == ARGS_MARK:
        return _read_marked_head(text)
    name, at = "", 0
    for part in ("{", '"name"', ":", "", ",", f'"{form.arguments}"', ":", "{"):
        at += len(text[at:]) - len(text[at:].lstrip())
        rest = text[at:]
        if part and rest.startswith(part):
            at += len(part)
        elif not part and (found := _STRING.match(rest)):
            name, at = json.loads(found[0], strict=False), at + found.end()
        elif part.startswith(rest) or (not part and rest.startswith('"')):
            return _Head(name, -1)
        else:
            return None
    return _Head(name, at - 1)


def _read_marked_head(text: str) -> _Head | None:
    """Mistral's newer form: a name, maybe an id, a mark, the arguments."""
    before, mark, rest = text.partition(ARGS_MARK)
    name = before.partition("[CALL_ID]")[0].strip()
    if mark and rest.lstrip():
        return _Head(name, text.index("{", len(before))) if rest.lstrip()[0] == "{" else None
    return None if "{" in before or len(name) > _MAX_NAME_CHARS else _Head(name, -1)


def _parse(text: str, key: str) -> tuple[str, str] | None:
    """(name, arguments) of a call that is written whole."""
    try:
        call = json.loads(text)
    except ValueError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get(key, call.get("arguments", {}))
    if isinstance(arguments, str):
        return call["name"], arguments
    return call["name"], json.dumps(arguments, ensure_ascii=False)


class _ObjectScan:
    """Finds the end of a JSON object that comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = self._is_escaped = False

    def read(self, text: str) -> int | None:
        """Where the object ends in ``text``, which goes on from the last one; None = later."""
        for index, char in enumerate(text):
            if self._is_escaped:
                self._is_escaped = False
            elif self._in_string:
                self._is_escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 0:
                    return index + 1
        return None
