"""``innkeeper pull``: downloads a model, and shows how it goes."""

import json as json_text
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from innkeeper.cli.ls import open_library
from innkeeper.cli.options import Options, with_settings
from innkeeper.cli.planning import PLANNED, wishes
from innkeeper.errors import (
    InvalidRequestError,
    NotEnoughMemoryError,
    NotFoundError,
    UnsupportedModelError,
)
from innkeeper.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from innkeeper.config import Settings
    from innkeeper.hub.client import Hub
    from innkeeper.hub.fit import RepoRow
    from innkeeper.hub.listing import Listing
    from innkeeper.hub.progress import Progress
    from innkeeper.hub.variants import Variant
    from innkeeper.planner.hardware import Hardware

_SHOW_SECONDS = 0.1
"""Progress comes with every piece of some KiB; nobody reads that fast."""


@with_settings("home", "offline", *PLANNED)
def pull(
    options: Options,
    model: Annotated[
        str,
        typer.Argument(
            metavar="REPO[:QUANT]",
            help="A Hugging Face repository, such as org/name:Q4_K_M."
            " Without a quantization: the best that fits this computer.",
            show_default=False,
        ),
    ],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Download a model from the Hugging Face hub. Interrupted, it goes on where it stopped."""
    from innkeeper.hub.address import parse_address
    from innkeeper.hub.listing import list_repo

    settings = options.settings()
    address = parse_address(model)
    hub = open_hub(settings)
    listing = list_repo(hub, address.repo_id)
    variant = pick(settings, hub, listing, address.wanted, machine(settings)).variant
    path = download(settings, hub, variant)
    if json:
        found = {"path": str(path), "name": variant.name, "size_bytes": variant.size_bytes}
        print(
            json_text.dumps({"repo": variant.repo_id, "commit": variant.commit, **found}, indent=2)
        )
    else:
        print(path)


def open_hub(settings: "Settings") -> "Hub":
    """The hub that Hugging Face's variables name."""
    from innkeeper.hub.client import Hub

    return Hub(is_offline=settings.offline)


def pick(
    settings: "Settings", hub: "Hub", listing: "Listing", wanted: str | None, here: "Hardware"
) -> "RepoRow":
    """The variant ``wanted``; without that the best that fits ``here`` as ``settings`` would load
    it. How it fits is said on stderr.

    Raises: as ``hub.variants.choose_variant``; NotEnoughMemoryError if nothing fits; HubError.
    """
    from innkeeper.hub.fit import RepoFit, RepoRow
    from innkeeper.hub.source import HubSource
    from innkeeper.hub.variants import choose_variant, variants
    from innkeeper.planner.verify import verify_guess

    offered = [variant for variant in variants(listing) if variant.is_safe]
    table = RepoFit(HubSource(hub, listing), offered, here, wishes(settings), verify_guess)
    if wanted is None and len(offered) > 1:
        row = table.best() or RepoRow(choose_variant(listing, None), None)
    else:
        row = RepoRow(choose_variant(listing, wanted), None)
        try:
            row = table.exact(row.variant)
        except UnsupportedModelError as error:  # such as a vision part: it was named
            print(f"{row.variant.name}: {error.message}", file=sys.stderr)
    if row.fit is not None:
        print(f"{row.variant.name}: {row.fit.reason}", file=sys.stderr)
    return row


def download(settings: "Settings", hub: "Hub", variant: "Variant") -> "Path":
    """Downloads ``variant`` into the home's models, shown on stderr. Raises: HubError."""
    from innkeeper.hub.download import Download

    assert settings.home is not None
    with PullScreen(f"{variant.repo_id} {variant.name}", variant.size_bytes) as screen:
        return Download(hub, variant, settings.home / "models", on_progress=screen.show).run()


def machine(settings: "Settings") -> "Hardware":
    """This computer, with the speed of its memory, which is measured once."""
    from innkeeper.planner.bandwidth import with_bandwidth
    from innkeeper.planner.hardware import probe

    assert settings.home is not None
    return with_bandwidth(probe(), settings.home / "cache" / "bandwidth.json")


def looks_like_repo(text: str) -> bool:
    """Whether ``text`` may name a repository of the hub."""
    from innkeeper.hub.address import looks_remote

    return looks_remote(text)


def obtain(settings: "Settings", wanted: str | None, hardware: "Hardware | None" = None) -> "Path":
    """Where the model ``wanted`` is, downloaded if it is a repository's and not here yet.

    None means the newest of the home's models; without any, the best of the catalogue that fits,
    after one question (none with ``--yes``). Raises: NotFoundError and its like if it is nowhere,
    InvalidRequestError if it may be several or nobody can be asked, UnsupportedModelError before
    anything is downloaded that cannot be loaded, HubError.
    """
    from innkeeper.hub.address import looks_remote, parse_address
    from innkeeper.hub.listing import list_repo
    from innkeeper.library import resolve

    library = open_library(settings)
    if wanted is None:
        newest = library.newest()
        return newest if newest is not None else _obtain_best(settings, hardware)
    try:
        return resolve(wanted, library)
    except NotFoundError:
        if not looks_remote(wanted):
            raise
    address = parse_address(wanted)
    hub = open_hub(settings)
    listing = list_repo(hub, address.repo_id)
    here = hardware or machine(settings)
    row = pick(settings, hub, listing, address.wanted, here)
    if row.variant.kind != "gguf":
        name = address.repo_id.partition("/")[2]
        raise UnsupportedModelError(
            f"{address.repo_id} has safetensors only, which cannot be loaded yet",
            hint=f"look for {name} as GGUF; innkeeper pull downloads it all the same",
        )
    if row.fit is not None and row.fit.full_bytes > here.all_memory_bytes:
        raise NotEnoughMemoryError(
            row.fit.reason, hint=f"innkeeper fit {address.repo_id} shows which ones fit"
        )
    return download(settings, hub, row.variant)


def _obtain_best(settings: "Settings", hardware: "Hardware | None") -> "Path":
    from innkeeper.cli.fit import choose_from_catalogue
    from innkeeper.hub.listing import list_repo
    from innkeeper.hub.variants import choose_variant

    if not settings.yes and not sys.stdin.isatty():
        raise InvalidRequestError(
            "there is no model here, and nobody can be asked which to download",
            hint="name one, or say --yes for the best that fits",
        )
    best, others = choose_from_catalogue(settings, hardware or machine(settings), wishes(settings))
    hub = open_hub(settings)
    variant = choose_variant(list_repo(hub, best.entry.repo), best.quant)
    size = format_bytes(variant.size_bytes)
    print(f"{best.entry.name} ({best.quant}, {size}): {best.entry.why}.", file=sys.stderr)
    print(f"It {best.row.reason}.", file=sys.stderr)
    if others:
        names = ", ".join(choice.model for choice in others[:3])
        print(f"Others that fit: {names}", file=sys.stderr)
    if not settings.yes:
        typer.confirm(f"Download it ({size})?", default=True, abort=True, err=True)
    return download(settings, hub, variant)


class PullScreen:
    """A progress bar on a terminal; elsewhere a line for each tenth."""

    def __init__(self, title: str, total_bytes: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(stderr=True, highlight=False)
        self._title = title
        self._tenths = -1
        self._shown_at = 0.0
        self._bar = Progress(
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=float(total_bytes), title=title)

    def __enter__(self) -> "PullScreen":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: "TracebackType | None",
    ) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            self._console.print("Paused. The same command goes on where it stopped.")

    def show(self, progress: "Progress") -> None:
        now = time.monotonic()
        if now - self._shown_at < _SHOW_SECONDS and progress.fraction < 1:
            return
        self._shown_at = now
        words = describe(progress)
        self._bar.update(self._task, completed=progress.done_bytes, description=words)
        tenths = int(10 * progress.fraction)
        if not self._console.is_terminal and tenths != self._tenths:
            self._tenths = tenths
            print(f"{self._title}: {10 * tenths}% ({words})", file=sys.stderr, flush=True)


def describe(progress: "Progress") -> str:
    """``1.2 GiB of 4.1 GiB, 35.0 MiB/s, 1 min 25 s left``."""
    words = f"{format_bytes(progress.done_bytes)} of {format_bytes(progress.total_bytes)}"
    if progress.stage != "downloading":
        return f"{progress.stage}, {words}"
    if progress.bytes_per_second:
        words += f", {format_bytes(progress.bytes_per_second)}/s"
    if progress.seconds_left is not None and progress.fraction < 1:
        words += f", {format_seconds(progress.seconds_left)} left"
    return words
