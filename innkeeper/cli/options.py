"""The settings table as command-line options."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer

from innkeeper.config import SETTINGS, Setting, Settings, load_settings

Command = Callable[..., None]

_SERVER = "Server"
_PANELS = {
    "Model and memory": (
        "ctx",
        "pool",
        "parallel",
        "max_models",
        "idle_unload",
        "pin",
        "gpu_layers",
        "kv_type",
        "swa_full",
        "threads",
        "no_tune",
        "model_folders",
        "lora",
        "draft_model",
        "tensor_split",
        "moe_cpu",
        "rope_scaling",
        "rope_scale",
        "mlock",
        "no_mmap",
        "kv_reuse",
        "no_idle_refresh",
    ),
    "Reaching it": (
        "host",
        "api_port",
        "ui_port",
        "no_ui",
        "api_key",
        "api_key_file",
        "also",
        "cors",
    ),
    "Behaviour": ("home", "offline", "yes", "log_level"),
}


class Options:
    """The settings that flags gave; the other sources are read when they are asked for."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given

    def settings(self) -> Settings:
        """Raises: SettingsError."""
        return load_settings(self.given, default_home())


def default_home() -> Path:
    """Where this system keeps the data of programs."""
    return Path(platformdirs.user_data_path("innkeeper", appauthor=False))


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Gives a command one option for each setting (or for ``names`` alone).

    They arrive together as its argument ``options``.
    """
    rows = [row for row in SETTINGS if not names or row.name in names]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {row.name: values.pop(row.name) for row in rows}
            given = {name: value for name, value in given.items() if value is not None}
            command(options=Options(given), **values)

        own = inspect.signature(command, eval_str=True).parameters
        kept = [parameter for name, parameter in own.items() if name != "options"]
        added = [_parameter(row) for row in rows]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*kept, *added)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _parameter(setting: Setting) -> inspect.Parameter:
    is_switch = setting.kind == "switch"
    option = typer.Option(
        setting.flag,
        help=_help(setting),
        metavar="" if is_switch else _metavar(setting),
        rich_help_panel=_panel(setting.name),
        show_default=False,
    )
    kind = bool | None if is_switch else str | None
    return inspect.Parameter(
        setting.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind, option],
    )


def _panel(name: str) -> str:
    return next((panel for panel, names in _PANELS.items() if name in names), _SERVER)


def _metavar(setting: Setting) -> str:
    if setting.metavar:
        return setting.metavar
    if setting.choices:
        return "|".join(setting.choices)
    words = "".join(f"{word}|" for word in setting.words)
    return words + {"integer": "N", "number": "N", "size": "SIZE"}.get(setting.kind, "TEXT")


def _help(setting: Setting) -> str:
    unit = f" {setting.unit}" if setting.unit and setting.shown_default not in ("", "auto") else ""
    default = f" [dim](default: {setting.shown_default}{unit})[/dim]"
    return setting.help + (default if setting.shown_default not in ("", "no") else "")
