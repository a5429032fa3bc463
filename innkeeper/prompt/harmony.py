"""gpt-oss's replies: messages on channels, of which one holds reasoning and one the answer.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...

A message on the channel ``commentary`` that is addressed to ``functions.NAME`` is a tool call; any
other there is for the user. Source: OpenAI's "Harmony response format".
"""

import re
from collections.abc import Sequence

from innkeeper.core import CallDelta, ReplyForm
from innkeeper.prompt.reply_reader import Parts, new_call_id

_CHANNEL, _MESSAGE, _START, _END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
START_OF_REPLY = "<|start|>assistant"
"""What a prompt ends with."""
ANALYSIS = f"{_CHANNEL}analysis{_MESSAGE}"
FINAL = f"{_CHANNEL}final{_MESSAGE}"
CLOSING = f"{_END}{START_OF_REPLY}{FINAL}"
"""From reasoning to the answer."""
SHOWN = (_CHANNEL, _MESSAGE, _START, _END, "<|constrain|>", "<|call|>", "<|return|>")
"""Special tokens that a reply is read by."""

_ENDS = (_END, _START, _CHANNEL, "<|call|>", "<|return|>")
_HEADS = (_START, _CHANNEL)
_NAME = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=functions\.([\w.:-]+)")
_MAX_HEAD_CHARS = 400


def is_harmony(template: str | None) -> bool:
    """Whether ``template`` is of a model that writes so."""
    return _CHANNEL in (template or "") and START_OF_REPLY in (template or "")


class HarmonyReader:
    """One reply, as ``ReplyReader`` for other models. Where reasoning is not to come apart, it is
    the beginning of the text."""

    def __init__(self, form: ReplyForm) -> None:
        self.num_calls = 0
        self._form = form
        self._buffer = form.opening
        self._parts = Parts()
        self._kind = ""
        """Of the message that is being read: ``reasoning``, ``text`` or ``call``; empty = its head
        is."""
        self._is_last = False

    def push(self, text: str) -> Parts:
        """Adds ``text``; returns what can be told now."""
        self._parts = Parts()
        self._buffer += text
        while self._read_body() if self._kind else self._read_head():
            pass
        return self._parts

    def finish(self) -> Parts:
        """What was held back, once nothing more comes."""
        self._is_last = True
        return self.push("")

    def _read_head(self) -> bool:
        if not self._buffer:
            return False
        head, mark, rest = self._buffer.partition(_MESSAGE)
        if not any(_agree(self._buffer, start) for start in _HEADS) or len(head) > _MAX_HEAD_CHARS:
            self._kind = "text"  # no message: what is no head is not lost
            return True
        if not mark:
            return False
        self._buffer, self._kind = rest, self._begin(head)
        return True

    def _begin(self, head: str) -> str:
        """What kind of message comes behind ``head``."""
        recipient = _RECIPIENT.search(head)
        if recipient is not None and recipient[1] in self._form.tool_names:
            self._parts.calls.append(CallDelta(self.num_calls, id=new_call_id(), name=recipient[1]))
            self.num_calls += 1
            return "call"
        name = _NAME.search(head)
        is_apart = name is not None and (name[1] == "analysis" or "to=" in head)
        return "reasoning" if is_apart else "text"

    def _read_body(self) -> bool:
        end, mark = _first(self._buffer, _ENDS)
        if not mark and not self._is_last:
            end = _held_from(self._buffer, _ENDS)
        self._tell(self._buffer[:end])
        self._buffer = self._buffer[end:]
        if not mark:
            return False
        if mark not in _HEADS:
            self._buffer = self._buffer[len(mark) :]
        if self._kind == "reasoning" and not self._form.reasoning[0]:
            self._parts.text += "\n\n"
        self._kind = ""
        return True

    def _tell(self, text: str) -> None:
        if not text:
            return
        if self._kind == "call":
            self._parts.calls.append(CallDelta(self.num_calls - 1, text))
        elif self._kind == "reasoning" and self._form.reasoning[0]:
            self._parts.reasoning += text
        else:
            self._parts.text += text


def _agree(text: str, mark: str) -> bool:
    """Whether ``text`` begins with ``mark``, or may yet."""
    return text.startswith(mark) or mark.startswith(text)


def _first(text: str, marks: Sequence[str]) -> tuple[int, str]:
    """Where the first of ``marks`` stands, and which; the text's length if none does."""
    found = [(text.find(mark), mark) for mark in marks if mark in text]
    return min(found, default=(len(text), ""))


def _held_from(text: str, marks: Sequence[str]) -> int:
    """Where a mark may have begun at the end of ``text``."""
    longest = max(map(len, marks))
    for at in range(max(0, len(text) - longest + 1), len(text)):
        if any(mark.startswith(text[at:]) for mark in marks):
            return at
    return len(text)
