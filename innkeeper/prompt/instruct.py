"""Instruct formats by name, for chats that ask for another one than the model's own.

Each is a model family's wire format, as its makers published it, and becomes a chat template.
"""

import json
import re
from typing import NamedTuple

from innkeeper.errors import InvalidRequestError

Around = tuple[str, str]
"""What stands before and behind a turn's text."""


class Instruct(NamedTuple):
    """One format."""

    name: str
    system: Around
    user: Around
    assistant: Around
    joins_system: bool = False
    """The system message has no turn of its own: it stands at the start of the user's next one."""
    aliases: tuple[str, ...] = ()

    @property
    def template(self) -> str:
        """As Jinja, for ``ChatTemplate``."""
        return _template(self)

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts by which a reply has gone on into the next turn: a model that was trained on
        another format does not know that they end it."""
        marks = (self.user[0].strip(), self.assistant[1].strip())
        return tuple(dict.fromkeys(mark for mark in marks if mark))


_ROLES = ("system", "user", "assistant")


def _headed(
    name: str,
    start: str,
    end: str,
    roles: tuple[str, str, str] = _ROLES,
    aliases: tuple[str, ...] = (),
) -> Instruct:
    """A format whose turns differ by the role's name alone, in place of ``{}`` in ``start``."""
    system, user, assistant = ((start.format(role), end) for role in roles)
    return Instruct(name, system, user, assistant, aliases=aliases)


_FORMATS = (
    Instruct(
        "Alpaca",
        ("", "\n\n"),
        ("### Instruction:\n", "\n\n"),
        ("### Response:\n", "\n\n"),
    ),
    _headed("ChatML", "<|im_start|>{}\n", "<|im_end|>\n"),
    _headed(
        "Command-R",
        "<|START_OF_TURN_TOKEN|><|{}_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        (
            "SYSTEM",
            "USER",
            "CHATBOT",
        ),
    ),
    Instruct(
        "DeepSeek",
        ("", "\n\n"),
        ("<\uff5cUser\uff5c>", ""),
        ("<\uff5cAssistant\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>"),
        aliases=("DeepSeek-V2.5", "DeepSeek-V3", "DeepSeek-R1"),
    ),
    Instruct(
        "Gemma",
        ("", "\n\n"),
        ("<start_of_turn>user\n", "<end_of_turn>\n"),
        ("<start_of_turn>model\n", "<end_of_turn>\n"),
        joins_system=True,
        aliases=("Gemma-2", "Gemma-3"),
    ),
    _headed(
        "Granite",
        "<|start_of_role|>{}<|end_of_role|>",
        "<|end_of_text|>\n",
    ),
    Instruct(
        "Llama-2",
        ("<<SYS>>\n", "\n<</SYS>>\n\n"),
        ("[INST] ", " [/INST]"),
        (" ", " </s><s>"),
        joins_system=True,
        aliases=("Llama-v2",),
    ),
    _headed(
        "Llama-3",
        "<|start_header_id|>{}<|end_header_id|>\n\n",
        "<|eot_id|>",
        aliases=("Llama-v3", "Llama-3.1", "Llama-3.2", "Llama-3.3"),
    ),
    _headed(
        "Llama-4",
        "<|header_start|>{}<|header_end|>\n\n",
        "<|eot|>",
    ),
    Instruct(
        "Metharme",
        ("<|system|>", ""),
        ("<|user|>", ""),
        ("<|model|>", ""),
        aliases=("Pygmalion",),
    ),
    Instruct(
        "Mistral",
        ("", "\n\n"),
        ("[INST] ", " [/INST]"),
        (" ", "</s>"),
        joins_system=True,
        aliases=("Mixtral",),
    ),
    Instruct(
        "Mistral V7",
        ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        ("[INST]", "[/INST]"),
        ("", "</s>"),
        aliases=("Mistral-V7-Tekken",),
    ),
    Instruct(
        "OpenChat",
        ("", "<|end_of_turn|>"),
        ("GPT4 Correct User: ", "<|end_of_turn|>"),
        ("GPT4 Correct Assistant: ", "<|end_of_turn|>"),
    ),
    _headed(
        "Phi-3",
        "<|{}|>\n",
        "<|end|>\n",
        aliases=("Phi",),
    ),
    _headed("Phi-4", "<|im_start|>{}<|im_sep|>", "<|im_end|>"),
    Instruct(
        "Solar",
        ("### System:\n", "\n\n"),
        ("### User:\n", "\n\n"),
        ("### Assistant:\n", "\n\n"),
    ),
    Instruct(
        "Vicuna",
        ("", " "),
        ("USER: ", " "),
        ("ASSISTANT: ", "</s>"),
        aliases=("Vicuna-v1.1",),
    ),
    _headed("Zephyr", "<|{}|>\n", "</s>\n"),
)
NAMES = tuple(form.name for form in _FORMATS)


def find(name: str) -> Instruct | None:
    """The format called ``name``; case and marks between its words do not matter."""
    return _BY_KEY.get(_key(name))


def get(name: str, field: str) -> Instruct:
    """The same. Raises: InvalidRequestError naming ``field`` and what there is."""
    form = find(name)
    if form is None:
        raise InvalidRequestError(
            f"{field}: there is no instruct format {name[:80]!r}",
            field=field,
            hint=f"there are: {', '.join(NAMES)}; or send a template of your own",
        )
    return form


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_KEY = {_key(name): form for form in _FORMATS for name in (form.name, *form.aliases)}

_JINJA = """\
{%- set kept = namespace(system='') -%}
{%- for message in messages -%}
  {%- set text = message.content or '' -%}
  {%- if message.role == 'system' and $joins -%}
    {%- set kept.system = kept.system + $system_start + text + $system_end -%}
  {%- elif message.role == 'system' -%}
    {{- $system_start + text + $system_end -}}
  {%- elif message.role == 'assistant' -%}
    {{- $assistant_start + text + $assistant_end -}}
  {%- else -%}
    {{- $user_start + kept.system + text + $user_end -}}
    {%- set kept.system = '' -%}
  {%- endif -%}
{%- endfor -%}
{%- if kept.system -%}{{- $user_start + kept.system + $user_end -}}{%- endif -%}
{%- if add_generation_prompt -%}{{- $opening -}}{%- endif -%}
"""


def _template(form: Instruct) -> str:
    texts = {
        "system_start": form.system[0],
        "system_end": form.system[1],
        "user_start": form.user[0],
        "user_end": form.user[1],
        "assistant_start": form.assistant[0],
        "assistant_end": form.assistant[1],
        # a blank at the end of a prompt keeps most tokenizers from their usual next token
        "opening": form.assistant[0].rstrip(" "),
    }
    literals = {name: json.dumps(text) for name, text in texts.items()}
    literals["joins"] = "true" if form.joins_system else "false"
    return re.sub(r"\$(\w+)", lambda match: literals[match[1]], _JINJA)
