"""Random requests to every route; ``python -m tests.peers.fuzz 10000`` sends more."""

from pathlib import Path

from tests.peers.fuzz import run


def test_random_requests_get_designed_answers(tmp_path: Path) -> None:
    statuses, wrong = run(600, seed=7, folder=tmp_path)
    assert not wrong
    assert statuses[200] > 100 and statuses[400] > 50
