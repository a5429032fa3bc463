"""The account of cells: prefixes, sharing, eviction, and that it always adds up."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from innkeeper.backends.fake import FakeRunner
from innkeeper.engine.bases import SHORT_TAIL
from innkeeper.engine.kv_cache import KVCache, Lease
from innkeeper.engine.reuse import Policy, common_prefix
from innkeeper.engine.runner import Row
from tests.unit.engine.conftest import pool_config


def make(num_cells: int = 100, num_ids: int = 4) -> tuple[KVCache, FakeRunner]:
    runner = FakeRunner(pool_config(num_cells, num_ids))
    return KVCache(runner, num_cells, num_scratch=num_ids), runner


def evaluate(cache: KVCache, runner: FakeRunner, sequence_id: int, tokens: list[int]) -> bool:
    """Evaluates ``tokens`` at the sequence's end; False if the pool is full."""
    if not cache.make_room(len(tokens)):
        return False
    start = cache.length(sequence_id)
    runner.forward([Row(t, start + i, sequence_id, False) for i, t in enumerate(tokens)])
    cache.append(sequence_id, tokens)
    return True


def read(cache: KVCache, runner: FakeRunner, tokens: list[int]) -> Lease:
    """Leases an id for ``tokens`` and evaluates the rest of them."""
    lease = cache.lease(tokens)
    assert lease is not None
    assert evaluate(cache, runner, lease.sequence_id, tokens[lease.num_cached :])
    return lease


@given(
    st.lists(st.integers(0, 2), max_size=600),
    st.lists(st.integers(0, 2), max_size=600),
    st.integers(0, 600),
)
def test_common_prefix_is_what_a_loop_finds(left: list[int], right: list[int], same: int) -> None:
    right = left[:same] + right
    expected = 0
    while expected < min(len(left), len(right)) and left[expected] == right[expected]:
        expected += 1
    assert common_prefix(left, right) == expected


def test_finished_chat_is_taken_over_whole() -> None:
    cache, runner = make()
    first = read(cache, runner, [1, 2, 3, 4])
    cache.release(first.sequence_id)
    assert cache.lease([1, 2, 3, 4, 5]) == Lease(first.sequence_id, 4, 4)


def test_the_last_token_is_always_evaluated_again() -> None:
    cache, runner = make()
    cache.release(read(cache, runner, [1, 2, 3]).sequence_id)
    lease = cache.lease([1, 2, 3])
    assert lease is not None
    assert lease.num_cached == 2


def test_another_branch_shares_cells_and_keeps_the_first() -> None:
    cache, runner = make()
    reply = list(range(10, 11 + SHORT_TAIL))
    cache.release(read(cache, runner, [1, 2, *reply]).sequence_id)
    read(cache, runner, [1, 2, 9])
    assert cache.num_used == 2 + len(reply) + 1
    again = cache.lease([1, 2, *reply, 5])
    assert again is not None
    assert again.num_cached == 2 + len(reply)


def test_a_few_last_tokens_are_not_kept_beside_another_branch() -> None:
    """How the last reply ended is not what the next prompt says."""
    cache, runner = make()
    cache.release(read(cache, runner, [1, 2, 3, 4]).sequence_id)
    lease = cache.lease([1, 2, 3, 9, 10])
    assert lease is not None
    assert (lease.num_cached, cache.num_used, cache.num_kept) == (3, 3, 0)


def test_oldest_idle_base_makes_room_first() -> None:
    cache, runner = make(num_cells=10)
    old = read(cache, runner, [1, 2, 3, 4])
    new = read(cache, runner, [5, 6, 7, 8])
    cache.release(old.sequence_id)
    cache.release(new.sequence_id)
    assert cache.make_room(6)
    assert cache.length(old.sequence_id) == 0
    assert cache.length(new.sequence_id) == 4


def test_cells_in_use_are_never_dropped() -> None:
    cache, runner = make(num_cells=10)
    lease = read(cache, runner, [1, 2, 3, 4, 5, 6])
    assert not cache.make_room(5)
    assert cache.length(lease.sequence_id) == 6


def test_no_lease_when_every_id_is_in_use() -> None:
    cache, runner = make(num_ids=2)
    read(cache, runner, [1])
    read(cache, runner, [2])
    assert cache.lease([3]) is None


def chats() -> st.SearchStrategy[list[int]]:
    """Prompts that are edits of each other: messages of 40 tokens, some left out."""
    message = st.integers(0, 5).map(lambda n: [n * 100 + i for i in range(40)])
    note = st.just([7]) | st.just([8, 9, 8])
    return st.lists(message | note, min_size=1, max_size=4).map(
        lambda parts: [token for part in parts for token in part]
    )


class Account(RuleBasedStateMachine):
    """Random chats over a small pool: the account always agrees with itself and the runner."""

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.runner = make(num_cells=400, num_ids=3)
        self.open: list[int] = []

    @rule(tokens=chats(), policy=st.sampled_from(Policy), stop_after=st.integers(0, 200))
    def begin(self, tokens: list[int], policy: Policy, stop_after: int) -> None:
        lease = self.cache.lease(tokens, policy)
        if lease is None:
            assert len(self.open) == 3
            return
        self.open.append(lease.sequence_id)
        while (length := self.cache.length(lease.sequence_id)) < len(tokens):
            assert self.runner.tokens(lease.sequence_id)[:length] == tokens[:length]
            stop = self.cache.next_stop(lease.sequence_id) or len(tokens)
            if length >= stop_after or not evaluate(
                self.cache, self.runner, lease.sequence_id, tokens[length:stop]
            ):
                return
            self.cache.attach(lease.sequence_id)
        assert self.runner.tokens(lease.sequence_id) == tokens

    @precondition(lambda self: self.open)
    @rule(data=st.data(), token=st.integers(0, 1))
    def decode(self, data: st.DataObject, token: int) -> None:
        sequence_id = data.draw(st.sampled_from(self.open))
        if self.cache.next_stop(sequence_id) is None:
            evaluate(self.cache, self.runner, sequence_id, [token])

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        sequence_id = data.draw(st.sampled_from(self.open))
        if self.cache.next_stop(sequence_id) is None:
            copy_id = self.cache.fork(sequence_id)
            if copy_id is not None:
                self.open.append(copy_id)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), keep=st.booleans())
    def end(self, data: st.DataObject, keep: bool) -> None:
        sequence_id = data.draw(st.sampled_from(self.open))
        self.open.remove(sequence_id)
        self.cache.release(sequence_id, keep=keep)

    @invariant()
    def adds_up(self) -> None:
        self.cache.check()
        assert self.cache.num_used == self.runner.num_cells_used()
        for sequence_id in range(3):
            held = len(self.runner.tokens(sequence_id))
            assert self.cache.length(sequence_id) == held


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
