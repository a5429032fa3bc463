"""docs/architecture.md says what is there: each package has its line, and each line its package."""

import re
from pathlib import Path

from tests.unit.test_layers import ALLOWED_BESIDE, LAYERS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "innkeeper"
PAGE = ROOT / "docs" / "architecture.md"
MAX_LINES = 100
LAYER_LINE = re.compile(r"^    (\d)  (.+?)(?:   +.*)?$")
WORD = re.compile(r"\w+")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def parts() -> set[str]:
    """Packages and top modules of ``innkeeper``."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    return packages | {path.stem for path in PACKAGE.glob("*.py") if path.stem[0] != "_"}


def described() -> set[str]:
    return set(re.findall(r"^- `(\w+)`: ", page(), re.MULTILINE))


def drawn() -> dict[str, int]:
    """Part -> layer, as the picture has them."""
    lines = [match for line in page().splitlines() if (match := LAYER_LINE.match(line))]
    return {word: int(line[1]) for line in lines for word in WORD.findall(line[2])}


def test_each_package_is_described() -> None:
    assert parts() - described() == set()


def test_each_description_has_its_package() -> None:
    assert described() - parts() == set()


def test_the_picture_shows_each_package_in_its_layer() -> None:
    levels = {name: level for level, names in enumerate(LAYERS) for name in names}
    assert {name: levels[name] for name in parts()} == {name: drawn()[name] for name in parts()}


def test_the_picture_shows_nothing_else() -> None:
    assert drawn().keys() - parts() == set()


def test_each_exception_of_one_line_is_named() -> None:
    bottom = LAYERS[0]
    for source, target in ALLOWED_BESIDE:
        assert source in bottom or f"`{source}` → `{target}`" in page()


def test_each_module_and_name_with_a_dot_exists() -> None:
    for name in re.findall(r"`((?:[a-z]\w+\.)+\w+)`", page()):
        assert is_module(name) or is_defined(name), name


def is_module(name: str) -> bool:
    path = PACKAGE / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def is_defined(name: str) -> bool:
    """Whether the module before the last dot names what comes after it."""
    module, _, last = name.rpartition(".")
    path = PACKAGE / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.exists() and re.search(rf"\b{last}\b", file.read_text()) is not None


def test_the_page_stays_short() -> None:
    assert len(page().splitlines()) < MAX_LINES
