"""Imports go down only: the layer table of docs/architecture.md, held by reading every import."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "innkeeper"
LAYERS = (
    {"core", "errors", "config", "units"},
    {"formats", "prompt", "cards", "demo"},
    {"engine", "backends", "planner"},
    {"hub", "library", "store", "enginelink"},
    {"serving"},
    {"api", "ui"},
    {"cli", "app"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ALLOWED_BESIDE = {
    ("cli", "app"),
    ("backends", "engine"),
    # the bottom line, from the bottom up: errors, units, then config and core
    ("units", "errors"),
    ("config", "errors"),
    ("config", "units"),
    ("core", "errors"),
    ("core", "units"),
}
BOTTOM_MAY_IMPORT = {"msgspec", "pydantic", "innkeeper"} | sys.stdlib_module_names
NO_MODEL_LIBRARIES = {"enginelink", "serving", "api", "ui", "cli", "app", "config", "core"}
MODEL_LIBRARIES = {"llama_cpp", "torch", "transformers"}
ENTRANCES = {"__init__", "__main__", "demo"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The package (or top module) of ``innkeeper`` that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[tuple[int, str]]:
    """(line, dotted name) of every import, those inside functions included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name) for name in names]
    return found


def own_imports(path: Path) -> list[tuple[int, str]]:
    """(line, part) for imports of ``innkeeper``'s own parts; ``__version__`` is none."""
    names = [(line, name.split(".")) for line, name in imports_of(path)]
    inside = [(line, parts[1]) for line, parts in names if parts[0] == "innkeeper" and parts[1:]]
    return [(line, part) for line, part in inside if part != "__version__"]


def is_allowed(source: str, target: str) -> bool:
    if source == target or (source, target) in ALLOWED_BESIDE:
        return True
    return target != "backends" and LEVEL[target] < LEVEL[source]


def test_every_part_has_a_layer() -> None:
    unknown = {part_of(path) for path in modules()} - LEVEL.keys() - ENTRANCES
    assert not unknown, f"give {unknown} a layer here and in docs/architecture.md"


def test_imports_go_down_only() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {part_of(path)} imports {part}"
        for path in modules()
        if part_of(path) in LEVEL
        for line, part in own_imports(path)
        if not is_allowed(part_of(path), part)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("api", "serving", True),
        ("serving", "api", False),
        ("api", "ui", False),
        ("cli", "app", True),
        ("app", "cli", False),
        ("backends", "engine", True),
        ("engine", "backends", False),
        ("app", "backends", False),
        ("engine", "planner", False),
        ("core", "config", False),
    ],
)
def test_the_rule_knows_up_from_down(source: str, target: str, allowed: bool) -> None:
    assert is_allowed(source, target) is allowed


def test_the_bottom_layer_needs_no_library_but_msgspec_and_pydantic() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in modules()
        if LEVEL.get(part_of(path)) == 0
        for line, name in imports_of(path)
        if name.split(".")[0] not in BOTTOM_MAY_IMPORT
    ]
    assert not wrong, "\n".join(wrong)


def test_the_gateway_never_links_a_model_library() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in modules()
        if part_of(path) in NO_MODEL_LIBRARIES
        for line, name in imports_of(path)
        if name.split(".")[0] in MODEL_LIBRARIES
    ]
    assert not wrong, "\n".join(wrong)


def test_an_import_inside_a_function_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "lazy.py"
    file.write_text("def f():\n    if True:\n        from innkeeper.api import app\n")
    assert imports_of(file) == [(3, "innkeeper.api.app")]
