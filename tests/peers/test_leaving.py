"""Clients that leave at any moment; ``python -m tests.peers.leaving 1000`` makes more."""

from pathlib import Path

from tests.peers.leaving import run


def test_clients_that_leave_at_any_moment_free_their_places(tmp_path: Path) -> None:
    assert len(run(96, seed=3, folder=tmp_path)) == 4
