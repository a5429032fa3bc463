"""A real Chromium, and a server over the fake backend for it to look at."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.server_process import ServerProcess

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 30_000
Serve = Callable[..., ServerProcess]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, headless=True)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose console errors and refused resources fail the test."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert not problems


@pytest.fixture
def serve(home: Path, tmp_path: Path) -> Iterator[Serve]:
    """Starts ``innkeeper up`` over the fake backend with options for it."""
    model = tmp_path / "tiny.gguf"
    model.touch()
    with ExitStack() as stack:

        def start(*flags: str, environment: dict[str, str] | None = None, **options: object):
            pairs = ",".join(f"{name}={value}" for name, value in options.items())
            given = ["--backend-options", pairs] if pairs else []
            command = ["--backend", "fake", "--ctx", "4096", *given, *flags]
            server = ServerProcess(home, str(model), *command, environment=environment)
            return stack.enter_context(server)

        yield start
