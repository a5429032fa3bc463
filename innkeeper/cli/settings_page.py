"""``docs/settings.md``, made from the settings table: ``python -m innkeeper.cli.settings_page``."""

from innkeeper.config import SETTINGS, Setting

_HEAD = """\
# Settings

<!-- Made by `python -m innkeeper.cli.settings_page`; a test compares. -->

A value comes from the first of these that has it:

1. a flag of `innkeeper up`, such as `--ctx 16384`;
2. the environment, such as `INNKEEPER_CTX=16384`;
3. `config.toml` in the home folder, such as `ctx = 16384`;
4. the default.

An unknown name or a value that is not allowed ends the start with one line that says where it
stands. `innkeeper doctor` shows the home folder. `./start` itself reads `INNKEEPER_PYTHON` (the
interpreter to use) and `INNKEEPER_BUILD` (`cpu`, `cuda`, `metal`, `vulkan`: which llama.cpp).

| name | default | allowed | what it does |
| --- | --- | --- | --- |
"""


def settings_page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(setting) for setting in SETTINGS)


def _row(setting: Setting) -> str:
    default = f"`{setting.shown_default}`" if setting.shown_default else "-"
    notes = "" if setting.in_file else " Not in `config.toml`."
    allowed = setting.allowed.replace("|", "\\|")
    return f"| `{setting.name}` | {default} | {allowed} | {setting.help}{notes} |\n"


if __name__ == "__main__":
    print(settings_page(), end="")
