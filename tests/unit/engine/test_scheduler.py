"""Slice sizes follow what was measured, and who waits."""

from innkeeper.backends.fake import FakeRunner
from innkeeper.core import EngineConfig, GenerateRequest
from innkeeper.engine.admission import Admission, Prepared
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.scheduler import MIN_SLICE, Scheduler, SliceSizer


def make(*, most: int, most_alone: int) -> tuple[Scheduler, Admission]:
    """``most``: rows of a slice, and of one of a prompt that nobody waits beside."""
    config = EngineConfig(backend="fake", path="", name="fake", num_ctx=512, num_pool=1024)
    runner = FakeRunner(config)
    cache = KVCache(runner, 1024, num_scratch=runner.facts.max_sequences)
    sizers = SliceSizer(0.25, most), SliceSizer(0.75, most_alone)
    scheduler = Scheduler(cache, *sizers, max_sequences=2, max_rows=512)
    return scheduler, Admission(runner, "auto", None)


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


def test_a_lone_prompt_has_no_small_last_slice() -> None:
    """What is left of it would take as long as a tile."""
    for num_tokens, size in ((54, 32), (47, 47), (48, 32), (20, 20)):
        scheduler, admission = make(most=2 * MIN_SLICE, most_alone=2 * MIN_SLICE)
        prepared = Prepared(1, GenerateRequest(prompt=""), [num_tokens] * num_tokens)
        scheduler.add(*admission.sequences(prepared))
        batch = scheduler.schedule()
        assert batch is not None and len(batch.rows) == size


def test_slices_are_larger_where_nobody_else_has_a_row() -> None:
    scheduler, admission = make(most=MIN_SLICE, most_alone=2 * MIN_SLICE)
    for number, size in ((1, 2 * MIN_SLICE), (2, MIN_SLICE)):
        tokens = [number * 10 + i % 7 for i in range(200)]
        for sequence in admission.sequences(Prepared(number, GenerateRequest(prompt=""), tokens)):
            scheduler.add(sequence)
        batch = scheduler.schedule()
        assert batch is not None and len(batch.rows) == size
    scheduler.finish(batch.reads[0][0])
    scheduler.add(admission.idle_work([7] * 200))
    for sequence in list(scheduler.running):
        if not sequence.is_idle_work:
            scheduler.finish(sequence)
    batch = scheduler.schedule()
    assert batch is not None and len(batch.rows) == MIN_SLICE, "idle work makes way soon"
