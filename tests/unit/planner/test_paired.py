import pytest

from innkeeper.planner.paired import FEWEST_ROUNDS, Race, compare


def test_a_stall_spoils_one_round_and_not_the_result() -> None:
    pairs = [(0.5, 1.0), (0.52, 1.0), (9.0, 1.0), (0.48, 1.0), (0.5, 20.0)]
    found = compare(pairs)
    assert found is not None and found.ratio == pytest.approx(0.5)
    assert (found.low, found.high) == (0.5 / 20, 9.0)


def test_bounds_come_closer_with_more_rounds() -> None:
    pairs = [(1 + 0.01 * number, 1.0) for number in range(30)]
    few, many = compare(pairs[::6]), compare(pairs)
    assert few is not None and many is not None
    assert many.high - many.low < few.high - few.low
    assert many.low <= many.ratio <= many.high


def test_nothing_is_compared_with_nothing() -> None:
    assert compare([]) is None


def test_who_is_clearly_slower_runs_no_further() -> None:
    race = Race(range(3), worth=0.97)
    race.add([1.0, 1.6, 1.1])
    assert race.running == [0, 2]
    race.add([1.0, None, 1.1])
    assert race.running == [0]


def test_a_race_goes_on_until_the_first_is_measured_often_enough() -> None:
    """Everybody else had lost by then, and "too little could be measured" was the answer."""
    race = Race(range(2), worth=0.97)
    race.add([1.0, 1.6])
    for _ in range(FEWEST_ROUNDS - 1):
        assert race.running == [0] and not race.is_settled
        race.add([1.0, None])
    assert race.is_settled


def test_a_race_is_settled_when_the_others_have_surely_won() -> None:
    race = Race(range(2), worth=0.97)
    for number in range(5):
        assert not race.is_settled
        race.add([1.0, 0.8 + 0.01 * number])
    assert race.is_settled and race.running == [0, 1]
    assert race.against_first(1) == compare((0.8 + 0.01 * number, 1.0) for number in range(5))


def test_who_is_as_quick_is_dropped_after_enough_rounds() -> None:
    race = Race(range(2), worth=0.97)
    for _ in range(4):
        race.add([1.0, 1.0])
        assert race.running == [0, 1]
    race.add([1.0, 1.0])
    assert race.running == [0]


def test_who_does_not_look_like_a_winner_is_not_waited_for() -> None:
    race = Race(range(2), worth=0.97)
    for number in range(8):
        assert race.running == [0, 1]
        race.add([1.0, 0.9 + 0.2 * (number % 2)])
    assert race.running == [0]


def test_a_round_that_was_cut_short_is_no_comparison() -> None:
    race = Race(range(2), worth=0.97)
    race.add([None, 0.5])
    race.add([1.0, None])
    assert race.against_first(1) is None
    assert race.running == [0, 1]
