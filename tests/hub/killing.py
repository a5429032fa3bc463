"""Kills a download again and again, and counts what that cost."""

import itertools
import multiprocessing
import random
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from huggingface_hub import constants

from innkeeper.hub.client import Hub
from innkeeper.hub.download import Download
from innkeeper.hub.listing import list_repo
from innkeeper.hub.progress import Progress
from innkeeper.hub.variants import choose_variant
from tests.hub.server import LocalHub

# Forked from a process that has imported everything but has no threads and no connections.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])


@dataclass
class Killed:
    """What happened over all runs of one download."""

    refetched: list[int] = field(default_factory=list)
    """Bytes that were sent twice, by kill."""
    shown: list[int] = field(default_factory=list)
    """Progress that was shown while downloading, over all runs."""
    num_runs: int = 0


def download_with_kills(
    server: LocalHub, repo_id: str, folder: Path, size: int, num_kills: int, seed: int
) -> Killed:
    """Kills with -9 when progress reaches ``num_kills`` random points, then lets it end."""
    points = sorted(random.Random(seed).sample(range(1, size - size // 20), num_kills))
    found = Killed()
    for point in [*points, None]:
        _run_until(server, repo_id, folder, point, found)
    for killed, after in itertools.pairwise(server.gets()):
        found.refetched.append(killed.start + killed.num_sent - after.start)
    return found


def _run_until(
    server: LocalHub, repo_id: str, folder: Path, point: int | None, found: Killed
) -> None:
    """One process; it is killed as soon as it shows ``point`` bytes."""
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_download, args=(server.url, repo_id, folder, theirs))
    process.start()
    theirs.close()
    try:
        while True:
            stage, done = ours.recv()
            if stage == "downloading":
                found.shown.append(done)
                if point is not None and done >= point:
                    process.kill()
    except (EOFError, ConnectionResetError):
        process.join()
    finally:
        ours.close()
    found.num_runs += 1
    assert process.exitcode == (0 if point is None else -9)
    process.close()


def _download(url: str, repo_id: str, folder: Path, report: "Connection[object, object]") -> None:
    def show(progress: Progress) -> None:
        report.send((progress.stage, progress.done_bytes))

    constants.HF_HUB_CACHE = str(folder.parent / "hf-home" / "hub")
    hub = Hub(url, token="of nobody")
    variant = choose_variant(list_repo(hub, repo_id), None)
    Download(hub, variant, folder, on_progress=show).run()
