"""Pages that are made from the code, or that list what is in it, agree with it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.testing import CliRunner

from innkeeper import __version__
from innkeeper.cli.main import COMMANDS, app
from innkeeper.cli.settings_page import settings_page
from innkeeper.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
LOCKS = (
    "requirements.lock",
    "requirements-dev.lock",
    *(f"installer/{name}.lock" for name in ("build", "uv-tool", "cuda12", "cuda13")),
)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[Requirement]:
    data = project()
    lines = data["project"]["dependencies"] + data["dependency-groups"]["dev"]
    return [Requirement(line) for line in lines]


def locked(name: str) -> dict[str, set[str]]:
    """Package -> versions (one for each range of Pythons) in a lock file."""
    versions: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([\w.+!-]+)", line):
            versions.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return versions


def test_the_settings_page_is_made_from_the_table() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run: python -m innkeeper.cli.settings_page > docs/settings.md"


def test_help_shows_every_setting_and_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    shown = CliRunner().invoke(app, ["up", "--help"]).output
    for setting in SETTINGS:
        assert re.search(rf"{setting.flag}\s", shown), setting.flag
        assert setting.help in shown, setting.name
        if setting.shown_default and setting.kind != "switch":
            assert f"(default: {setting.shown_default}" in shown, setting.name


def test_every_dependency_is_explained() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^- `([\w-]+)`: ", page, re.MULTILINE))
    build = {Requirement(line).name for line in project()["build-system"]["requires"]}
    assert explained == {r.name for r in requirements()} | build | {"uv"}


def test_the_lock_files_have_what_the_project_asks_for() -> None:
    versions = locked("requirements.lock") | locked("requirements-dev.lock")
    for requirement in requirements():
        found = versions.get(canonicalize_name(requirement.name), set())
        assert found, f"{requirement.name}: run python installer/lock.py"
        assert all(requirement.specifier.contains(version) for version in found), requirement


def test_both_lock_files_agree() -> None:
    runtime, development = locked("requirements.lock"), locked("requirements-dev.lock")
    for name in runtime.keys() & development.keys():
        assert runtime[name] == development[name], name


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_names_no_address_and_has_a_hash_for_each_version(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert "://" not in text and "index" not in text
    assert entries and all("--hash=sha256:" in entry for entry in entries)


def test_the_readme_names_the_two_commands_and_only_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "./start MODEL.gguf" in readme and "./start test" in readme
    named = set(re.findall(r"innkeeper ([a-z]+)\b", readme, re.MULTILINE))
    assert named <= COMMANDS


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_changelog_has_the_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
