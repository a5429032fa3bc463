"""Clients that take turns with two models; ``python -m tests.peers.switching 500`` is longer."""

from pathlib import Path

from tests.peers.switching import run


def test_clients_that_alternate_get_their_own_model_in_every_dialect(tmp_path: Path) -> None:
    num_answers, switches = run(8, seed=1, folder=tmp_path)
    assert switches.count >= 8 and num_answers >= 8
