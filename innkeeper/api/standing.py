"""What stands before a request comes, for OpenAI's routes and those of Oobabooga and TabbyAPI.

Characters that a chat may name; a template that a model was loaded with; sampling values that a
client has set for all who leave them open.
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from innkeeper.api import character, chat, completions, fields, requests, values
from innkeeper.cards import Cards
from innkeeper.core.presets import PRESETS
from innkeeper.errors import InvalidRequestError
from innkeeper.prompt import instruct
from innkeeper.serving import LoadJob, Models

Body = Mapping[str, Any]
Template = tuple[str, str]
"""A field of a chat, and its value."""
_TEMPLATE_FIELDS = ("instruction_template_str", "chat_template", "instruction_template")
_ALIASES = {name: field.names for field in fields.FIELDS for name in field.names}


class Override(Struct, frozen=True, kw_only=True):
    """A field's value for requests that leave it open."""

    override: Any
    force: bool = False
    """Also for those that do not."""
    additive: bool = False
    """Lists: what the request has comes first, and this after it."""


class Standing:
    """Reads bodies, with what stands in place of what they leave open."""

    def __init__(self, models: Models, cards: Cards | None = None) -> None:
        self._models = models
        self._cards = cards or Cards()
        self._templates: dict[str, Template] = {}
        """By model."""
        self.preset: str | None = None
        """The one that ``overrides`` came from."""
        self.overrides: dict[str, Override] = {}

    # --- reading ----------------------------------------------------------------------------------

    def completion(self, body: Body) -> completions.Call:
        """As ``completions.parse``. Raises: InvalidRequestError."""
        return completions.parse(self._overridden(body))

    def chat(self, body: Body) -> chat.Call:
        """As ``chat.parse``, with the named character's card in the fields that ``body`` leaves
        open.

        Raises: InvalidRequestError, NotFoundError.
        """
        body = self._with_template(self._overridden(body))
        if not body.get("character") or character.mode(body) == "instruct":
            return chat.parse(body)
        name = values.text(1000)("character", body["character"])
        card = self._cards.find(name)
        unused = [f"not applied: {part} of {card.name}'s card" for part in card.unused]
        return chat.parse(character.with_card(body, card), warnings=unused)

    # --- setting ----------------------------------------------------------------------------------

    def set_template(self, model: str, chosen: Template | None) -> None:
        """The template of chats with ``model`` that bring none; None = the model's own."""
        if chosen is None:
            self._templates.pop(model, None)
        else:
            self._templates[model] = chosen

    def set_template_after(self, job: LoadJob, chosen: Template | None) -> None:
        """The same, once the model is loaded; nothing if the load fails."""

        def act() -> None:
            if job.state.status == "done":
                self.set_template(job.state.name, chosen)

        job.when_done(act)

    def template_name(self, model: str) -> str | None:
        """What ``set_template`` named for it; ``custom`` for a text."""
        found = self._templates.get(model)
        if found is None:
            return None
        return found[1] if found[0] == "instruction_template" else "custom"

    def set_preset(self, name: str) -> None:
        """Raises: InvalidRequestError for an unknown one."""
        values.choice(*PRESETS)("preset", name)
        self.preset, self.overrides = name, {"preset": Override(override=name)}

    def set_overrides(self, given: Any) -> None:
        """``{field: {override, force, additive}}``. Raises: InvalidRequestError."""
        if not isinstance(given, dict):
            raise values.refuse("overrides", "an object of field and override", given)
        self.overrides = {name: _override(name, each) for name, each in given.items()}
        self.preset = None

    def unset_overrides(self) -> None:
        self.preset, self.overrides = None, {}

    def _overridden(self, body: Body) -> Body:
        if not self.overrides:
            return body
        found = dict(body)
        for name, each in self.overrides.items():
            given = [key for key in _ALIASES[name] if body.get(key) is not None]
            if given and each.additive and isinstance(each.override, list):
                mine = body[given[0]]
                found[given[0]] = [*(mine if isinstance(mine, list) else [mine]), *each.override]
            elif each.force or not given:
                found |= dict.fromkeys(given) | {name: each.override}
        return found

    def _with_template(self, body: Body) -> Body:
        model = self._models.facts_of(requests.model(body))
        found = self._templates.get(model.name) if model and self._templates else None
        if found is None or any(body.get(field) for field in _TEMPLATE_FIELDS):
            return body
        return body if character.mode(body) == "chat" else {**body, found[0]: found[1]}


def template(
    name: Any, text: Any = None, *, field: str = "instruction_template"
) -> Template | None:
    """A template given by name or as Jinja; None = the model's own. field: what the client calls
    the name.

    Raises: InvalidRequestError for a name that there is none of.
    """
    if text:
        written = "instruction_template_str"
        return written, values.text(chat.MAX_TEMPLATE_CHARS)(written, text)
    if not name or name in ("None", "from_model"):
        return None
    return "instruction_template", instruct.get(values.text(1000)(field, name), field).name


def _override(name: str, given: Any) -> Override:
    if name not in _ALIASES:
        raise InvalidRequestError(f"overrides: there is no field {name[:80]!r}", field="overrides")
    if not isinstance(given, dict) or given.get("override") is None:
        raise values.refuse(f"overrides.{name}", "an object with override", given)
    flags = {
        flag: values.flag(f"overrides.{name}.{flag}", given.get(flag) or False)
        for flag in ("force", "additive")
    }
    requests.build({name: given["override"]})  # refuses what no request could ask for
    return Override(override=given["override"], **flags)
