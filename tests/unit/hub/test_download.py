"""Downloads: what arrives is whole and right, whatever the server does; nothing is lost."""

import errno
import hashlib
import io
import threading
from pathlib import Path

import pytest
from huggingface_hub import constants

from innkeeper.hub.client import Hub
from innkeeper.hub.download import RESERVE_BYTES, Download
from innkeeper.hub.errors import (
    DiskFullError,
    DownloadError,
    DownloadPausedError,
    HubAccessError,
    HubError,
    HubUnreachableError,
    WrongContentError,
)
from innkeeper.hub.listing import RemoteFile, list_repo
from innkeeper.hub.part import PartFile
from innkeeper.hub.progress import Progress
from innkeeper.hub.variants import Variant, choose_variant
from tests.hub import Fault, HubFile, LocalHub
from tests.hub.bytes import noise

CONTENT = noise(3_000_000)
NAME = "m-Q4_K_M.gguf"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def variant(hub: Hub, name: str | None = None) -> Variant:
    return choose_variant(list_repo(hub, "org/m"), name)


def left_over(models: Path) -> list[str]:
    """Files that are not the model: parts and locks."""
    found = [path.name for path in models.rglob("*") if path.is_file()]
    return sorted(name for name in found if name.endswith((".part", ".lock")))


def test_a_model_arrives_whole_under_its_repositorys_name(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    path = Download(hub, variant(hub), models).run()
    assert path == models / "org" / "m" / NAME
    assert path.read_bytes() == CONTENT
    assert left_over(models) == []


def test_progress_counts_all_files_and_ends_at_the_whole(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {f"m-Q8_0-0000{n}-of-00002.gguf": CONTENT for n in (1, 2)})
    seen: list[Progress] = []
    Download(hub, variant(hub), models, on_progress=seen.append).run()
    counts = [progress.done_bytes for progress in seen]
    assert counts == sorted(counts)
    assert counts[-1] == seen[-1].total_bytes == 2 * len(CONTENT)
    assert seen[-1].fraction == 1.0


def test_what_is_there_already_is_not_fetched_again(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    Download(hub, variant(hub), models).run()
    sent = server.sent()
    Download(hub, variant(hub), models).run()
    assert server.sent() == sent


def test_safetensors_come_with_their_settings(server: LocalHub, hub: Hub, models: Path) -> None:
    files: dict[str, bytes | HubFile] = {
        "model.safetensors": CONTENT,
        "config.json": b'{"a": 1}',
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"p",
    }
    server.add("org/m", files)
    folder = Download(hub, variant(hub), models).run()
    assert folder == models / "org" / "m"
    assert {p.name for p in folder.iterdir()} == set(files) - {"pytorch_model.bin"}
    assert (folder / "config.json").read_bytes() == b'{"a": 1}'


def test_what_hugging_faces_cache_has_is_used_where_it_is(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    chosen = variant(hub)
    snapshot = Path(constants.HF_HUB_CACHE) / "models--org--m" / "snapshots" / chosen.commit
    snapshot.mkdir(parents=True)
    (snapshot / NAME).write_bytes(CONTENT)
    assert Download(hub, chosen, models).run() == snapshot / NAME
    assert server.sent() == 0 and not models.exists()


def test_a_file_of_an_older_commit_in_the_cache_is_used_only_if_it_is_the_same(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    chosen = variant(hub)
    repo = Path(constants.HF_HUB_CACHE) / "models--org--m"
    snapshot = repo / "snapshots" / ("0" * 40)
    for folder in (repo / "blobs", snapshot):
        folder.mkdir(parents=True)
    digest = chosen.main.sha256 or ""
    (repo / "blobs" / digest).write_bytes(CONTENT)
    (repo / "blobs" / "other").write_bytes(CONTENT[::-1])
    (snapshot / NAME).symlink_to(repo / "blobs" / "other")
    assert Download(hub, chosen, models).run() == models / "org" / "m" / NAME
    (snapshot / NAME).unlink()
    (snapshot / NAME).symlink_to(repo / "blobs" / digest)
    assert Download(hub, chosen, models).run() == snapshot / NAME


# --- twelve hostile servers ---------------------------------------------------------------------


def cut(*places: int) -> list[Fault]:
    return [Fault(cut_after=place) for place in places]


@pytest.mark.parametrize(
    ("faults", "most_sent"),
    [
        pytest.param(cut(1, 1_000_000, 70_000), 1.1, id="cuts the connection"),
        pytest.param([*cut(1_000_000), Fault(ignore_range=True)], 1.5, id="ignores the range"),
        pytest.param([Fault(status=429, headers={"Retry-After": "3"})], 1.0, id="is busy"),
        pytest.param([Fault(status=503), Fault(status=500)], 1.0, id="is out of order"),
        pytest.param([Fault(stretch=5000)], 1.1, id="claims and sends more"),
        pytest.param([Fault(at="hub", status=502)], 1.0, id="fails before the redirect"),
    ],
)
def test_a_download_survives_a_server_that(
    server: LocalHub, hub: Hub, models: Path, faults: list[Fault], most_sent: float
) -> None:
    server.add("org/m", {NAME: CONTENT})
    server.faults = faults
    seen: list[int] = []
    path = Download(
        hub, variant(hub), models, on_progress=lambda p: seen.append(p.done_bytes)
    ).run()
    assert path.read_bytes() == CONTENT
    assert seen == sorted(seen)
    assert server.sent() <= most_sent * len(CONTENT)
    assert server.faults == []


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        pytest.param(Fault(flip=True), WrongContentError, "checksum", id="changes a byte"),
        pytest.param(
            Fault(shift=-7), WrongContentError, "another part", id="answers another range"
        ),
        pytest.param(
            Fault(headers={"Content-Range": "bytes 0-9/10"}),
            WrongContentError,
            "10 bytes on the server",
            id="has another length",
        ),
        pytest.param(
            Fault(body=b"<html>log in</html>", headers={"Content-Type": "text/html"}),
            HubError,
            "web page",
            id="sends a web page",
        ),
        pytest.param(
            Fault(headers={"Content-Encoding": "gzip"}), HubError, "compressed", id="sends a bomb"
        ),
        pytest.param(
            Fault(at="hub", headers={"X-Linked-Etag": '"' + "0" * 64 + '"'}),
            WrongContentError,
            "ETag changed",
            id="changes the ETag",
        ),
        pytest.param(
            Fault(at="hub", location="file:///etc/passwd"),
            HubError,
            "not followed",
            id="points away",
        ),
    ],
)
def test_nothing_wrong_is_kept_from_a_server_that(
    server: LocalHub,
    hub: Hub,
    models: Path,
    fault: Fault,
    error: type[HubError],
    words: str,
) -> None:
    server.add("org/m", {NAME: CONTENT})
    server.faults = [fault]
    with pytest.raises(error, match=words):
        Download(hub, variant(hub), models).run()
    assert [p for p in models.rglob("*") if p.is_file()] == []
    assert Download(hub, variant(hub), models).run().read_bytes() == CONTENT


def test_a_server_that_redirects_in_circles_is_left(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    server.faults = [Fault(location=f"{server.cdn_url}/org/m/main/{NAME}")] * 20
    with pytest.raises(HubError, match="redirects again and again"):
        Download(hub, variant(hub), models).run()
    assert len(server.gets()) <= 6


def test_a_server_that_never_gets_on_is_given_up(
    server: LocalHub, hub: Hub, models: Path, waits: list[float]
) -> None:
    server.add("org/m", {NAME: CONTENT})
    server.faults = cut(1000, *[0] * 10)
    with pytest.raises(HubUnreachableError, match="HF_ENDPOINT"):
        Download(hub, variant(hub), models).run()
    assert sum(waits) == 1 + 2 + 4
    assert sum(p.stat().st_size for p in models.rglob("*.part")) == 1000


def test_a_server_that_falls_silent_is_asked_again(server: LocalHub, models: Path) -> None:
    server.add("org/m", {NAME: CONTENT})
    server.faults = [Fault(stall=True)]
    hub = Hub(server.url, read_seconds=0.2, sleep=lambda _: None)
    assert Download(hub, variant(hub), models).run().read_bytes() == CONTENT
    assert len(server.gets()) == 2


# --- the token ----------------------------------------------------------------------------------


def test_the_token_goes_to_the_configured_host_alone(server: LocalHub, models: Path) -> None:
    server.tokens = {"secret"}
    server.add("org/m", {NAME: CONTENT}, gated=True, allowed_tokens=frozenset({"secret"}))
    server.faults = cut(1000)
    hub = Hub(server.url, "secret", sleep=lambda _: None)
    Download(hub, variant(hub), models).run()
    assert {seen.token for seen in server.log if seen.door == "hub"} == {"secret"}
    assert {seen.token for seen in server.log if seen.door == "cdn"} == {None}


def test_a_licence_that_was_withdrawn_stops_the_download_and_keeps_the_part(
    server: LocalHub, models: Path
) -> None:
    server.tokens = {"secret"}
    repo = server.add("org/m", {NAME: CONTENT}, gated=True, allowed_tokens=frozenset({"secret"}))
    hub = Hub(server.url, "secret", sleep=lambda _: setattr(repo, "allowed_tokens", frozenset()))
    server.faults = cut(1000)
    with pytest.raises(HubAccessError, match="licence"):
        Download(hub, variant(hub), models).run()
    assert sum(p.stat().st_size for p in models.rglob("*.part")) == 1000


# --- going on -----------------------------------------------------------------------------------


def pause_after(server: LocalHub, hub: Hub, models: Path, num_bytes: int) -> None:
    """Leaves a part of at least ``num_bytes``."""
    stop = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.done_bytes >= num_bytes:
            stop.set()

    with pytest.raises(DownloadPausedError):
        Download(hub, variant(hub), models, on_progress=watch, stop=stop).run()


def test_a_paused_download_goes_on_where_it_stopped(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    pause_after(server, hub, models, 1_000_000)
    [part] = models.rglob("*.part")
    kept = part.stat().st_size
    path = Download(hub, variant(hub), models).run()
    assert path.read_bytes() == CONTENT
    assert server.gets()[-1].start == kept >= 1_000_000


def test_a_download_that_waits_for_a_busy_server_can_be_paused(
    server: LocalHub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    server.faults = [Fault(status=429, headers={"Retry-After": "100"})]
    stop, waits = threading.Event(), []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        stop.set()

    hub = Hub(server.url, sleep=sleep)
    with pytest.raises(DownloadPausedError):
        Download(hub, variant(hub), models, stop=stop).run()
    assert waits == [1.0]


def test_remains_that_were_damaged_are_thrown_away_and_fetched_anew(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    pause_after(server, hub, models, 1_000_000)
    [part] = models.rglob("*.part")
    part.write_bytes(b"\0" * part.stat().st_size)
    seen: list[int] = []
    path = Download(
        hub, variant(hub), models, on_progress=lambda p: seen.append(p.done_bytes)
    ).run()
    assert path.read_bytes() == CONTENT
    assert seen == sorted(seen)


def test_remains_longer_than_the_file_are_thrown_away(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    pause_after(server, hub, models, 1_000_000)
    [part] = models.rglob("*.part")
    part.write_bytes(CONTENT + b"more")
    assert Download(hub, variant(hub), models).run().read_bytes() == CONTENT


def test_remains_of_another_version_are_never_continued(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    pause_after(server, hub, models, 1_000_000)
    newer = CONTENT[::-1]
    server.add("org/m", {NAME: newer})
    assert Download(hub, variant(hub), models).run().read_bytes() == newer
    assert [seen.start for seen in server.gets()] == [0, 0]
    assert left_over(models) == []


def test_two_downloads_of_one_file_do_not_meet(server: LocalHub, hub: Hub, models: Path) -> None:
    server.add("org/m", {NAME: CONTENT})
    refused: list[DownloadError] = []

    def second(progress: Progress) -> None:
        if not refused and progress.done_bytes:
            with pytest.raises(DownloadError, match="another process") as caught:
                Download(hub, variant(hub), models).run()
            refused.append(caught.value)

    path = Download(hub, variant(hub), models, on_progress=second).run()
    assert refused and path.read_bytes() == CONTENT


# --- the disk -----------------------------------------------------------------------------------


def test_too_little_space_is_refused_before_the_first_byte(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    free = len(CONTENT) + RESERVE_BYTES - 1
    with pytest.raises(DiskFullError, match=r"needs 2\.9 MiB more; .* are free"):
        Download(hub, variant(hub), models, free_bytes=lambda _: free).run()
    assert server.gets() == [] and not models.exists()


def test_what_is_there_counts_when_the_disk_is_asked(
    server: LocalHub, hub: Hub, models: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    pause_after(server, hub, models, 1_000_000)
    free = len(CONTENT) - 1_000_000 + RESERVE_BYTES
    path = Download(hub, variant(hub), models, free_bytes=lambda _: free).run()
    assert path.read_bytes() == CONTENT


def test_a_disk_that_fills_up_pauses_the_download_and_keeps_the_part(
    server: LocalHub, hub: Hub, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("org/m", {NAME: CONTENT})
    answers = [1 << 40, 1 << 40, 0]
    monkeypatch.setattr("innkeeper.hub.download._CHECK_DISK_BYTES", 1_000_000)
    download = Download(hub, variant(hub), models, free_bytes=lambda _: answers.pop(0))
    with pytest.raises(DiskFullError, match="goes on where it stopped"):
        download.run()
    [part] = models.rglob("*.part")
    assert 1_000_000 <= part.stat().st_size < len(CONTENT)
    assert Download(hub, variant(hub), models).run().read_bytes() == CONTENT


def test_a_write_that_fails_for_want_of_space_keeps_what_is_there(tmp_path: Path) -> None:
    class FullDisk(io.FileIO):
        def write(self, piece: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    part = PartFile(tmp_path / NAME, RemoteFile(NAME, len(CONTENT), None, None))
    part.open(lambda _: None)
    part.write(CONTENT[:1000])
    whole, part._file = part._file, FullDisk(part.path, "ab")
    with pytest.raises(DiskFullError, match="1000 B of m-Q4_K_M"):
        part.write(CONTENT[1000:])
    assert whole is not None
    whole.close()
    part.close()
    assert part.path.read_bytes() == CONTENT[:1000]


def test_a_folder_that_cannot_be_written_is_named(
    server: LocalHub, hub: Hub, tmp_path: Path
) -> None:
    server.add("org/m", {NAME: CONTENT})
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(DownloadError, match="cannot be written"):
        Download(hub, variant(hub), tmp_path / "models").run()


def test_small_files_are_checked_by_gits_own_sum(server: LocalHub, hub: Hub, models: Path) -> None:
    lying = HubFile(CONTENT, claimed_sha256=hashlib.sha256(b"other").hexdigest())
    server.add("org/m", {"model.safetensors": lying, "config.json": b"{}"})
    chosen = variant(hub)
    small = {file.name: file for file in chosen.files}["config.json"]
    assert small.sha256 is None and small.blob_id
    with pytest.raises(WrongContentError, match="SHA-256"):
        Download(hub, chosen, models).run()
