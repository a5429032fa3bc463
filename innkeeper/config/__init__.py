"""Every setting, in one table: the fields of ``Settings``.

A value comes from the first of: a command-line flag, ``INNKEEPER_<NAME>`` in the environment,
``config.toml`` in the home folder, the default. ``--help`` and ``docs/settings.md`` are made from
the table. Settings are read once, at the start, and never change.
"""

from innkeeper.config.load import further_ports, is_loopback, load_settings
from innkeeper.config.setting import Setting
from innkeeper.config.table import OPEN_SWITCH, SETTINGS, Settings

__all__ = [
    "OPEN_SWITCH",
    "SETTINGS",
    "Setting",
    "Settings",
    "further_ports",
    "is_loopback",
    "load_settings",
]
