"""Downloads that are killed, and the table of a repository of twenty quantizations.

    python -m benchmarks.hub --bytes 1000000000 --kills 50

Everything goes to the local hub of the tests. The first rows: kill -9 at random points of one
download; what was sent twice a kill (target: one chunk of 10 MiB at most), whether the checksum is
right, whether progress ever fell, memory above that of the idle process (target: 60 MB). The last
rows: ``fit REPO`` with 50 ms before each answer (targets: 3 s and 20 MB; the exact row: one more
second).
"""

import argparse
import hashlib
import multiprocessing
import random
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import psutil

from benchmarks.report import Table
from innkeeper.hub.client import Hub
from innkeeper.hub.download import Download
from innkeeper.hub.fit import RepoFit
from innkeeper.hub.listing import list_repo
from innkeeper.hub.progress import Progress
from innkeeper.hub.source import HubSource
from innkeeper.hub.variants import choose_variant, variants
from innkeeper.planner.hardware import probe
from innkeeper.planner.wishes import Wishes
from innkeeper.units import MIB
from tests.hub import HubFile, LocalHub
from tests.hub.killing import download_with_kills
from tests.hub.models import BULK, write_llama

LATENCY_SECONDS = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    table = Table("what", "value")
    with tempfile.TemporaryDirectory(prefix="innkeeper-hub-") as folder:
        for what, value in killed_download(Path(folder), options):
            table.add(what, value)
        for what, value in repo_table(Path(folder)):
            table.add(what, value)
    print(table.markdown())


def killed_download(folder: Path, options: argparse.Namespace) -> list[tuple[str, str]]:
    path = folder / "m-Q4_K_M.gguf"
    write_noise(path, options.bytes, options.seed)
    with LocalHub(bytes_per_second=400e6) as server:
        server.tokens = {"of nobody"}
        server.add("org/m", {path.name: HubFile(path)})
        expected = server.repos["org/m"].files[path.name].sha256
        found = download_with_kills(
            server, "org/m", folder / "models", options.bytes, options.kills, options.seed
        )
        arrived = folder / "models" / "org" / "m" / path.name
        with arrived.open("rb") as file:
            is_right = hashlib.file_digest(file, "sha256").hexdigest() == expected
        memory = memory_above_idle(server.url, folder / "again")
    return [
        ("size", f"{options.bytes / 1e6:,.0f} MB"),
        ("kills", f"{found.num_runs - 1}"),
        ("sent twice a kill, median", f"{median(found.refetched) / 1024:,.0f} KiB"),
        ("sent twice a kill, most", f"{max(found.refetched) / 1024:,.0f} KiB"),
        ("checksum", "right" if is_right else "WRONG"),
        ("progress", "never fell" if found.shown == sorted(found.shown) else "FELL"),
        ("memory above idle", f"{memory / 1e6:.1f} MB"),
    ]


def write_noise(path: Path, num_bytes: int, seed: int) -> None:
    """Pieces that differ, so that a misplaced one is found."""
    piece = bytearray(random.Random(seed).randbytes(MIB))
    with path.open("wb") as file:
        for start in range(0, num_bytes, MIB):
            piece[:8] = start.to_bytes(8, "little")
            file.write(piece[: num_bytes - start])


def memory_above_idle(url: str, folder: Path) -> int:
    """Bytes by which the peak of a downloading process exceeds that before the first request."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report_memory, args=(url, folder, theirs))
    process.start()
    found = int(ours.recv())
    process.join()
    return found


def _report_memory(url: str, folder: Path, report: "Connection[int, int]") -> None:
    process = psutil.Process()
    idle = most = process.memory_info().rss

    def sample(progress: Progress) -> None:
        nonlocal most
        if progress.done_bytes % 7 == 0:
            most = max(most, process.memory_info().rss)

    hub = Hub(url)
    variant = choose_variant(list_repo(hub, "org/m"), None)
    Download(hub, variant, folder, on_progress=sample).run()
    report.send(max(most, process.memory_info().rss) - idle)


def repo_table(folder: Path) -> list[tuple[str, str]]:
    """Twenty quantizations of an 8B model with a header of 7 MB, as Llama 3's is."""
    files = {}
    for quant in BULK:
        path = folder / "quants" / f"m-{quant}.gguf"
        write_llama(path, quant, num_tokens=128_256, token_bytes=48)
        files[path.name] = HubFile(path, claimed_sha256="0" * 64)
    hardware = probe()
    with LocalHub(latency_seconds=LATENCY_SECONDS) as server:
        server.add("org/q", files)
        started = time.perf_counter()
        hub = Hub(server.url)
        listing = list_repo(hub, "org/q")
        table = RepoFit(HubSource(hub, listing), variants(listing), hardware, Wishes())
        rows = table.rows()
        table_seconds = time.perf_counter() - started
        table_bytes = server.sent() + server.sent("hub")
        started = time.perf_counter()
        exact = table.exact(next(row.variant for row in rows if not row.is_exact))
        exact_seconds = time.perf_counter() - started
    assert exact.is_exact
    return [
        ("rows", f"{len(rows)}"),
        ("whole table", f"{table_seconds:.2f} s"),
        ("fetched for it", f"{table_bytes / 1e6:.1f} MB"),
        ("exact row", f"{exact_seconds:.2f} s"),
    ]


if __name__ == "__main__":
    main()
