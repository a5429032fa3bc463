"""One row of the settings table, and how its value is read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from innkeeper.errors import SettingsError
from innkeeper.units import format_bytes, parse_bytes

Kind = Literal["integer", "number", "switch", "text", "path", "size", "list", "choice"]
Value = int | float | bool | str | Path | tuple[str, ...] | None

PREFIX = "INNKEEPER_"

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_KIND_WORDS: dict[Kind, str] = {
    "integer": "a whole number",
    "number": "a number",
    "switch": "yes or no",
    "text": "a text",
    "path": "a path",
    "size": "a size like 16M",
    "list": "names with commas between them",
    "choice": "one of the choices",
}


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str
    kind: Kind
    default: Value
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    words: Mapping[str, int] = field(default_factory=dict)
    """Words that stand for a number, such as ``auto``."""
    in_file: bool = True
    """Whether config.toml may hold it."""
    secret: bool = False
    """Never shown."""
    metavar: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def allowed(self) -> str:
        """What may be given, for people."""
        if self.choices:
            return ", ".join(self.choices)
        words = "".join(f"{word}, or " for word in self.words)
        return words + _KIND_WORDS[self.kind] + self._range

    @property
    def _range(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        if self.minimum is None:
            return unit
        low, high = self._show(self.minimum), self.maximum
        return f" from {low}{unit}" if high is None else f" from {low} to {self._show(high)}{unit}"

    def _show(self, number: float) -> str:
        return format_bytes(number) if self.kind == "size" else f"{number:.15g}"

    @property
    def shown_default(self) -> str:
        for word, number in self.words.items():
            if number == self.default:
                return word
        if self.kind == "size" and isinstance(self.default, int):
            return format_bytes(self.default)
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        if isinstance(self.default, tuple):
            return ", ".join(self.default)
        return "" if self.default is None else str(self.default)

    def parse(self, value: object, source: str) -> Value:
        """``value`` (text, or of a TOML type) as this setting's type.

        Raises: SettingsError with the name, the value, its source and what is allowed.
        """
        try:
            parsed = self._parse(value)
        except (ValueError, TypeError, OverflowError, SettingsError):
            shown = "(hidden)" if self.secret else repr(value)[:80]
            raise SettingsError(
                f"{self.name} = {shown} ({source}) is not allowed",
                field=self.name,
                hint=f"allowed: {self.allowed}",
            ) from None
        return parsed

    def _parse(self, value: object) -> Value:
        if isinstance(value, str):
            value = value.strip()
            if value.lower() in self.words:
                return self.words[value.lower()]
        if self.kind in ("integer", "number", "size"):
            return self._in_range(_number(self.kind, value))
        if self.kind == "switch":
            return _switch(value)
        if self.kind == "list":
            return _list(value)
        if not isinstance(value, str) or not value:
            raise ValueError
        if self.choices and value not in self.choices:
            raise ValueError
        return Path(value).expanduser() if self.kind == "path" else value

    def _in_range(self, number: int | float) -> int | float:
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if not low <= number <= high:
            raise ValueError
        return number


def _number(kind: Kind, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if kind == "size":
        return parse_bytes(str(value))
    if kind == "number":
        return float(value)
    if isinstance(value, float):
        raise TypeError
    return int(value)


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _YES | _NO:
        return value.lower() in _YES
    raise ValueError


def _list(value: object) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise TypeError
    return tuple(item.strip() for item in items if item.strip())


def setting(kind: Kind, default: Any, help_text: str, **details: Any) -> Any:
    """A field of the table."""
    return field(default=default, metadata={"kind": kind, "help": help_text, **details})
