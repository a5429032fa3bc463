"""Slice sizes follow what was measured."""

from innkeeper.engine.scheduler import MIN_SLICE, SliceSizer


def settle(tokens_per_second: float, *, steps: int = 40) -> SliceSizer:
    sizer = SliceSizer(0.25, 512)
    for _ in range(steps):
        sizer.observe(sizer.num_tokens, sizer.num_tokens / tokens_per_second)
    return sizer


def test_slices_settle_below_the_time_limit() -> None:
    for speed in (100, 1000, 1900):
        assert 0.1 < settle(speed).num_tokens / speed <= 0.25


def test_a_machine_too_slow_for_a_tile_reads_one() -> None:
    for speed in (1, 50):
        assert settle(speed).num_tokens == MIN_SLICE


def test_slices_are_whole_tiles() -> None:
    """As a processor that reads nine rows no sooner than sixteen."""
    sizer = SliceSizer(0.25, 512)
    for _ in range(40):
        num_tiles = -(-sizer.num_tokens // MIN_SLICE)
        sizer.observe(sizer.num_tokens, 0.22 * num_tiles)
        assert sizer.num_tokens % MIN_SLICE == 0
    assert sizer.num_tokens == MIN_SLICE


def test_fast_machine_gets_the_largest_slice() -> None:
    assert settle(100_000).num_tokens == 512


def test_one_slow_step_is_answered_at_once_and_forgotten() -> None:
    sizer = settle(1000)
    before = sizer.num_tokens
    sizer.observe(before, 10.0)
    assert sizer.num_tokens <= before // 2
    for _ in range(10):
        sizer.observe(sizer.num_tokens, sizer.num_tokens / 1000)
    assert sizer.num_tokens == before


def test_short_last_slice_does_not_shrink_the_next() -> None:
    sizer = settle(1000)
    before = sizer.num_tokens
    sizer.observe(MIN_SLICE, 0.05)
    assert sizer.num_tokens == before
