"""Chat templates: Jinja from a model file, in a sandbox.

The sandbox keeps a template from reaching Python. It does not bound time or memory, so only
``worker`` runs templates of model files; see ``renderer``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from innkeeper.core import Message
from innkeeper.errors import InvalidRequestError, UnsupportedModelError

CHATML = """\
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + (message.content or '') + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""
"""For models that bring no template of their own."""

MAX_OUTPUT_CHARS = 16 * 1024 * 1024
_MAX_REPEATED = 1 << 20
_MAX_MESSAGE_CHARS = 500
_CONTINUE_MARK = "\ue0c5\ue17a\ue0c5"

_T = TypeVar("_T")


class TemplateRaisedError(InvalidRequestError):
    """The template itself refused the messages, through ``raise_exception``."""

    code = "template_refused"


class _Raised(jinja2.TemplateError):
    pass


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote, for training; here it is plain."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (_is_small(left) and _is_small(right)):
            raise SecurityError("a power of numbers that large")
        if operator == "*":
            for many, times in ((left, right), (right, left)):
                if hasattr(many, "__len__") and isinstance(times, int):
                    if len(many) * times > _MAX_REPEATED:
                        raise SecurityError("a repetition that long")
        return super().call_binop(context, operator, left, right)


def _is_small(value: object) -> bool:
    return not isinstance(value, int) or abs(value) <= 64


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja2's own filter escapes HTML, which would change the prompt.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> None:
    raise _Raised(str(message))


def _environment() -> _Environment:
    environment = _Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


class ChatTemplate:
    """One compiled template; the special tokens it may write are fixed with it.

    Raises: UnsupportedModelError if it is not valid Jinja.
    """

    def __init__(self, text: str, *, bos_text: str = "", eos_text: str = "") -> None:
        self._fixed = {"bos_token": bos_text, "eos_token": eos_text}
        self._compiled = _guard(lambda: _environment().from_string(text), _unusable)

    def render(
        self,
        messages: Sequence[Message],
        *,
        continue_last: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt, which opens the assistant's turn, or ends within the last message if
        ``continue_last``.

        Raises: TemplateRaisedError with the template's own words; InvalidRequestError for any
        other failure.
        """
        turns = [_turn(message) for message in messages]
        if continue_last:
            if not turns:
                raise InvalidRequestError("there is no message to continue", field="messages")
            turns[-1]["content"] = (turns[-1]["content"] or "") + _CONTINUE_MARK
        values: dict[str, Any] = {"tools": None, "documents": None, **(variables or {})}
        values |= self._fixed
        values |= {"messages": turns, "add_generation_prompt": not continue_last}
        text = _guard(lambda: self._generate(values), _failed)
        return _cut_at_mark(text) if continue_last else text

    def _generate(self, values: Mapping[str, Any]) -> str:
        pieces: list[str] = []
        num_chars = 0
        for piece in self._compiled.generate(values):
            num_chars += len(piece)
            if num_chars > MAX_OUTPUT_CHARS:
                raise SecurityError(f"its output exceeds {MAX_OUTPUT_CHARS} characters")
            pieces.append(piece)
        return "".join(pieces)


def _turn(message: Message) -> dict[str, Any]:
    return {**message.extra, "role": message.role, "content": message.content}


def _cut_at_mark(text: str) -> str:
    place = text.rfind(_CONTINUE_MARK)
    if place < 0:
        raise InvalidRequestError(
            "the chat template does not keep the last message, so it cannot be continued",
            field="messages",
        )
    return text[:place]


def _guard(work: Callable[[], _T], to_error: Callable[[str], Exception]) -> _T:
    """Runs ``work``; whatever a template can raise becomes one of our errors."""
    try:
        return work()
    except _Raised as error:
        raise TemplateRaisedError(
            f"the model's chat template refused the messages: {_short(error)}", field="messages"
        ) from None
    except MemoryError:
        raise to_error("it needs too much memory") from None
    except RecursionError:
        raise to_error("it is nested too deeply") from None
    except jinja2.TemplateSyntaxError as error:
        raise to_error(f"line {error.lineno}: {_short(error)}") from None
    except Exception as error:  # noqa: BLE001  (a template can make any Python error)
        raise to_error(_short(error)) from None


def _unusable(why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the model's chat template cannot be used: {why}",
        hint="text completion works; for chat use another template",
    )


def _failed(why: str) -> InvalidRequestError:
    return InvalidRequestError(f"the model's chat template failed: {why}", field="messages")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    clean = "".join(char for char in text if char.isprintable())
    return clean if len(clean) <= _MAX_MESSAGE_CHARS else clean[:_MAX_MESSAGE_CHARS] + "…"
