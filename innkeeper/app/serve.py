"""From settings to running servers, and back."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from innkeeper.api import Access, create_app
from innkeeper.api.security import Guard
from innkeeper.app.engines import engine_defaults
from innkeeper.app.home import Home, HomeLock
from innkeeper.app.ports import bind
from innkeeper.app.servers import Servers, StopSignal
from innkeeper.cards import Cards
from innkeeper.config import Settings, further_ports, is_loopback
from innkeeper.core import ModelFacts
from innkeeper.enginelink import EngineLink, LinkLimits
from innkeeper.serving import (
    Collection,
    Generate,
    KeepRules,
    LoadJob,
    LoadState,
    Loras,
    Models,
)
from innkeeper.serving.tuning import Tuning
from innkeeper.ui import OPEN_PATHS, Places, create_ui

if TYPE_CHECKING:
    from innkeeper.hub.client import Hub

_POLL_SECONDS = 0.01


class Ready(NamedTuple):
    """What is being served, and where."""

    api_url: str
    ui_url: str | None
    facts: ModelFacts


class Screen(Protocol):
    """Where a run shows how it goes."""

    def loading(self, state: LoadState) -> None:
        """Called at every change of the load."""

    def ready(self, ready: Ready) -> None:
        """Called once, when ``GET /health`` answers 200."""

    def stopping(self) -> None:
        """Called when the end begins; not after an error."""


class _GuardedUi:
    """The web page behind the API's rules; the page itself needs no key, its data does."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        access = msgspec.structs.replace(access, origins=frozenset())
        self._data = Guard(app, access)
        self._page = Guard(app, msgspec.structs.replace(access, api_key=None))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        guard = self._page if scope.get("path") in OPEN_PATHS else self._data
        await guard(scope, receive, send)


class _Doors(NamedTuple):
    api: list[socket.socket]
    """The first one is the port of the settings."""
    ui: socket.socket | None


def run(settings: Settings, home: Home, model_path: Path, screen: Screen) -> None:
    """Serves ``model_path`` until Ctrl-C or SIGTERM.

    Raises: StartError (port, second instance), and what loading the model failed with.
    """
    with HomeLock(home):
        asyncio.run(_serve(settings, home, model_path, screen))


async def _serve(settings: Settings, home: Home, model_path: Path, screen: Screen) -> None:
    stop = StopSignal()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(stop.handlers())
        doors = _open_doors(settings, stack)
        models = _make_models(settings, home)
        stack.push_async_callback(models.close)
        generate = Generate(
            models,
            max_queued=settings.queue_limit,
            drops_turns=settings.chat_overflow == "drop",
        )
        servers = Servers(settings.keepalive_seconds)
        stack.push_async_callback(servers.stop)
        stack.callback(generate.stop_all)
        places = _places(settings)
        access = _access(settings, places)
        collection = _make_collection(settings, home, models)
        stack.push_async_callback(collection.close)
        api = create_app(
            generate,
            models,
            collection,
            access,
            cards=Cards(home.characters),
            loras=Loras(home.loras),
        )
        for door in doors.api:
            await servers.start(api, door)
        if doors.ui is not None:
            ui = _GuardedUi(create_ui(generate, models, places), access)
            await servers.start(ui, doors.ui)
        if await stop.comes_before(_load(models, model_path, screen)):
            return screen.stopping()
        assert models.facts is not None
        ui_url = None if settings.no_ui else places.ui_url
        screen.ready(Ready(places.api_url, ui_url, models.facts))
        await stop.wait()
        screen.stopping()


def _open_doors(settings: Settings, stack: contextlib.AsyncExitStack) -> _Doors:
    api = [bind(settings.host, settings.api_port, "API", "--api-port")]
    stack.callback(api[0].close)
    for name, port in further_ports(settings).items():
        api.append(bind(settings.host, port, name, "--also"))
        stack.callback(api[-1].close)
    if settings.no_ui:
        return _Doors(api, None)
    ui = bind(settings.host, settings.ui_port, "web page", "--ui-port or --no-ui")
    stack.callback(ui.close)
    return _Doors(api, ui)


def _make_models(settings: Settings, home: Home) -> Models:
    limits = LinkLimits(hung_seconds=settings.engine_hang_seconds)
    start = functools.partial(EngineLink.start, limits=limits)
    keep = KeepRules(
        max_loaded=settings.max_models,
        idle_seconds=settings.idle_unload,
        pinned=frozenset(settings.pin),
        exact_names=settings.exact_names,
    )
    tune = None if settings.no_tune else Tuning(home.tuning)
    return Models(
        home.models,
        engine_defaults(settings, home),
        keep=keep,
        further=_further(settings),
        log_folder=home.logs,
        start=start,
        tune=tune,
    )


def _make_collection(settings: Settings, home: Home, models: Models) -> Collection:
    def open_hub(token: str | None) -> "Hub":
        from innkeeper.hub.client import Hub

        return Hub(token=token, is_offline=settings.offline)

    return Collection(models, home.models, further=_further(settings), open_hub=open_hub)


def _further(settings: Settings) -> list[Path]:
    return [Path(folder).expanduser() for folder in settings.model_folders]


def _places(settings: Settings) -> Places:
    """URLs as a browser on this computer types them."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return Places(
        api_url=f"http://{host}:{settings.api_port}/", ui_url=f"http://{host}:{settings.ui_port}/"
    )


def _access(settings: Settings, places: Places) -> Access:
    own = {} if settings.no_ui else {places.ui_url.rstrip("/")}
    return Access(
        api_key=settings.api_key,
        manage_key=settings.manage_key,
        admin_key=settings.admin_key,
        hosts=frozenset(name.lower() for name in settings.allowed_hosts),
        any_address=not is_loopback(settings.host),
        origins=frozenset({*own, *(origin.lower().rstrip("/") for origin in settings.cors)}),
        max_body_bytes=settings.max_body,
    )


async def _load(models: Models, path: Path, screen: Screen) -> None:
    """Loads, and waits until the engine answers. Raises: what the load failed with."""
    job = models.start_load_file(path)
    await _show(job, screen.loading)
    await job.wait()
    while not models.healthy:
        await asyncio.sleep(_POLL_SECONDS)


async def _show(job: LoadJob, show: Callable[[LoadState], None]) -> None:
    async for state in job.watch():
        show(state)
