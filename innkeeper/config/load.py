"""Settings from flags, environment, file and defaults."""

import dataclasses
import difflib
import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from innkeeper.config.setting import PREFIX, Setting, Value
from innkeeper.config.table import BY_NAME, Settings
from innkeeper.errors import SettingsError

SETUP_VARIABLES = frozenset({"PYTHON", "BUILD", "STAMP", "SHARED"})
"""``INNKEEPER_*`` names that ``./start`` and the tests read; they are no settings."""

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*?#@]+/?", re.IGNORECASE)


def load_settings(
    flags: Mapping[str, object],
    default_home: Path,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from all four sources. ``flags`` holds those given, by setting name.

    Raises: SettingsError naming the setting, the value, where it came from and what is allowed.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {"home": default_home}
    given = _from_environment(environ) | _from_flags(flags)
    home = given.get("home", default_home)
    assert isinstance(home, Path)
    settings = Settings(**(values | _from_file(home / "config.toml") | given))
    settings = _with_key_from_file(settings)
    check_consistency(settings)
    return settings


def _from_flags(flags: Mapping[str, object]) -> dict[str, Value]:
    return {name: BY_NAME[name].parse(value, BY_NAME[name].flag) for name, value in flags.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Value]:
    values = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or name in SETUP_VARIABLES or not text:
            continue
        setting = _known(name.lower(), f"the environment's {variable}")
        values[setting.name] = setting.parse(text, variable)
    return values


def _from_file(path: Path) -> dict[str, Value]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    values = {}
    for name, value in table.items():
        setting = _known(name, str(path))
        if not setting.in_file:
            raise SettingsError(
                f"{setting.name} cannot be set in {path}",
                field=setting.name,
                hint=f"use {setting.flag} or {setting.variable}",
            )
        values[setting.name] = setting.parse(value, str(path))
    return values


def _known(name: str, source: str) -> Setting:
    if name in BY_NAME:
        return BY_NAME[name]
    close = difflib.get_close_matches(name, BY_NAME, n=1)
    raise SettingsError(
        f"{source}: there is no setting {name!r}",
        field=name,
        hint=f"did you mean {close[0]}?" if close else "docs/settings.md lists them",
    )


def _with_key_from_file(settings: Settings) -> Settings:
    path = settings.api_key_file
    if path is None or settings.api_key is not None:
        return settings
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SettingsError(f"api_key_file cannot be read: {error}", field="api_key_file") from None
    if not lines or not lines[0].strip():
        raise SettingsError(f"api_key_file {path} is empty", field="api_key_file")
    return dataclasses.replace(settings, api_key=lines[0].strip())


def check_consistency(settings: Settings) -> None:
    """Refuses settings that are each fine, and not together. Raises: SettingsError."""
    if not is_loopback(settings.host) and settings.api_key is None:
        raise SettingsError(
            f"host {settings.host} lets other computers in, and no API key is set",
            field="host",
            hint=f"set one with {BY_NAME['api_key'].variable}=... or --api-key-file FILE",
        )
    if not settings.no_ui and settings.api_port == settings.ui_port:
        raise SettingsError(
            f"api_port and ui_port are both {settings.api_port}",
            field="ui_port",
            hint="give another --ui-port, or --no-ui",
        )
    _check_origins(settings)
    further_ports(settings)
    if 0 < settings.pool < settings.ctx:
        raise SettingsError(
            f"pool = {settings.pool} is smaller than ctx = {settings.ctx}",
            field="pool",
            hint="one request may use all of ctx, so give at least that much, or auto",
        )
    _check_rope(settings)
    _check_split(settings)
    for option in settings.backend_options:
        if "=" not in option:
            raise SettingsError(
                f"backend_options has {option!r}", field="backend_options", hint="write name=value"
            )


def further_ports(settings: Settings) -> dict[str, int]:
    """``also`` by name. Raises: SettingsError for one that is no port, or taken twice."""
    ports: dict[str, int] = {}
    taken = {settings.api_port, *(() if settings.no_ui else (settings.ui_port,))}
    for each in settings.also:
        name, _, number = each.rpartition(":")
        port = int(number) if number.isascii() and number.isdigit() else 0
        if not name or not 0 < port < 1 << 16:
            raise SettingsError(
                f"also has {each!r}", field="also", hint="write NAME:PORT, such as ollama:11434"
            )
        if port in taken or name in ports:
            raise SettingsError(f"also names {each!r} twice, or a port that is used", field="also")
        taken.add(port)
        ports[name] = port
    return ports


def _check_origins(settings: Settings) -> None:
    for origin in settings.cors:
        if not _ORIGIN.fullmatch(origin):
            raise SettingsError(
                f"cors has {origin!r}, which is no origin of a web page",
                field="cors",
                hint="write scheme and host as the browser shows them: https://lite.koboldai.net",
            )


def _check_rope(settings: Settings) -> None:
    is_scaled = settings.rope_scaling in ("linear", "yarn")
    if is_scaled != (settings.rope_scale > 1):
        raise SettingsError(
            f"rope_scaling = {settings.rope_scaling} and rope_scale = {settings.rope_scale:g} do"
            " not go together",
            field="rope_scale",
            hint="give both, such as --rope-scaling yarn --rope-scale 2, or neither",
        )


def _check_split(settings: Settings) -> None:
    try:
        shares = [float(share) for share in settings.tensor_split]
    except ValueError:
        shares = [-1.0]
    if shares and not (min(shares) >= 0 and 0 < sum(shares) < math.inf and len(shares) <= 16):
        raise SettingsError(
            f"tensor_split = {','.join(settings.tensor_split)[:80]} is not allowed",
            field="tensor_split",
            hint="allowed: up to 16 numbers from 0, not all 0, such as 3,1",
        )


def is_loopback(host: str) -> bool:
    """Whether only this computer can reach ``host``. Names other than localhost count as public."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
