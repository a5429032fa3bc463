"""kill -9 at random points of a download loses no more than was on the wire."""

from pathlib import Path

from innkeeper.units import MIB
from tests.hub import LocalHub
from tests.hub.bytes import noise
from tests.hub.killing import download_with_kills

SIZE = 64 * MIB
NUM_KILLS = 20
IN_SOCKETS = 4 * MIB
"""What may be on its way between two sockets; far less than one of huggingface_hub's chunks."""


def test_a_download_that_is_killed_twenty_times_arrives_whole_and_once(
    server: LocalHub, tmp_path: Path
) -> None:
    content = noise(SIZE)
    server.add("org/m", {"m-Q4_K_M.gguf": content})
    server.tokens = {"of nobody"}
    server.bytes_per_second = 200e6
    found = download_with_kills(server, "org/m", tmp_path / "models", SIZE, NUM_KILLS, seed=7)
    assert (tmp_path / "models/org/m/m-Q4_K_M.gguf").read_bytes() == content
    assert found.shown == sorted(found.shown)
    assert found.num_runs == NUM_KILLS + 1
    assert max(found.refetched) <= IN_SOCKETS
