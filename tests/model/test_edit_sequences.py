"""Random chats over llama.cpp: what the account calls exact gives the logits of a fresh reading."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest

from innkeeper.backends import llama_cpp as backend
from innkeeper.backends.llama_cpp.runner import LlamaRunner
from innkeeper.core import EngineConfig
from innkeeper.engine.kv_cache import KVCache
from innkeeper.engine.reuse import Policy
from innkeeper.engine.runner import Logits, Row
from innkeeper.engine.tiers import Tiers
from tests.chat_edits import EditedChat

NUM_CELLS = 1200
NUM_CHATS = 15
NUM_TURNS = 12
TOLERANCE = 1e-3


class Reader:
    """A pool over a real model."""

    def __init__(self, path: Path) -> None:
        config = EngineConfig(
            backend="llama_cpp",
            path=str(path),
            name="x",
            num_ctx=1024,
            num_pool=NUM_CELLS,
            max_sequences=3,
            max_kept=2,
            num_threads=1,
            kv_type_k="f32",
            kv_type_v="f32",
        )
        self.runner: LlamaRunner = backend.load(config, lambda fraction: None)
        tiers = Tiers(self.runner, 1 << 24, None)
        self.cache = KVCache(self.runner, NUM_CELLS, num_scratch=3, tiers=tiers)
        self.num_cached = 0
        """Tokens that were not read, ever."""

    def read(
        self, tokens: Sequence[int], policy: Policy, speaker: str = "", stop_at: int = 1 << 30
    ) -> tuple[Logits | None, bool]:
        """The logits behind ``tokens``, and whether all of it is exact; None if it was cancelled
        at ``stop_at`` tokens."""
        lease = self.cache.lease(tokens, policy, speaker)
        assert lease is not None
        self.num_cached += lease.num_cached
        place, is_exact, logits = lease.sequence_id, lease.num_exact == lease.num_cached, None
        while (start := self.cache.length(place)) < min(len(tokens), stop_at):
            stop = min(self.cache.next_stop(place) or len(tokens), start + 100)
            assert self.cache.make_room(stop - start)
            rows = [Row(t, start + i, place, False) for i, t in enumerate(tokens[start:stop])]
            rows[-1] = rows[-1]._replace(wants_logits=True)
            logits = self.runner.forward(rows)[0].copy()
            self.cache.append(place, tokens[start:stop])
            is_exact = not self.cache.attach(place) and is_exact
        is_whole = self.cache.length(place) == len(tokens)
        self.cache.release(place)
        self.cache.check()
        return (logits if is_whole else None), is_exact

    def fresh(self, tokens: Sequence[int]) -> Logits:
        self.cache.drop_idle()
        logits, is_exact = self.read(tokens, Policy.EXACT)
        assert is_exact
        assert logits is not None
        self.cache.drop_idle()
        return logits


@pytest.fixture(params=["llama", "qwen2", "mixtral"])
def readers(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Iterator[list[Reader]]:
    """One that edits, and one that reads everything."""
    both = [Reader(tiny_models[request.param]) for _ in range(2)]
    yield both
    for reader in both:
        reader.runner.close()


def test_what_is_called_exact_is_exact(readers: list[Reader]) -> None:
    reader, reference = readers
    num_exact = num_edited = 0
    for seed in range(NUM_CHATS):
        rng = Random(seed)
        chat = EditedChat(rng)
        for _ in range(NUM_TURNS):
            chat.edit()
            chat.fit(600)
            tokens = chat.prompt()
            policy = rng.choice((Policy.EXACT, Policy.FAST, Policy.TURBO))
            stop_at = rng.choice((1 << 30, rng.randrange(len(tokens))))
            logits, is_exact = reader.read(tokens, policy, chat.speaker, stop_at)
            if logits is None:
                continue
            num_exact += is_exact
            num_edited += not is_exact
            if is_exact:
                assert np.abs(logits - reference.fresh(tokens)).max() < TOLERANCE
            assert np.isfinite(logits).all()
    assert num_exact > 25
    assert num_edited > 20
