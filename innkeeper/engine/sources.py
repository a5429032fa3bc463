"""Which base a new prompt goes on from."""

from collections.abc import Sequence
from typing import NamedTuple

from innkeeper.engine.bases import Base, Checkpoint
from innkeeper.engine.reuse import Policy, ReusePlan, common_prefix, plan_reuse
from innkeeper.engine.runner import Runner

MIN_GAIN = 16
"""An edit must save this many tokens over the best exact prefix, which spoils nothing."""


class Source(NamedTuple):
    """A base that a new prompt could go on from."""

    sequence_id: int
    plan: ReusePlan
    checkpoint: Checkpoint | None = None
    """Where the prefix ends, if the base cannot be cut there without it."""


class Sources(NamedTuple):
    """The best of each kind; ``edit`` only if it saves enough over ``prefix``."""

    prefix: Source | None
    edit: Source | None = None

    def num_reused(self) -> int:
        best = self.edit or self.prefix
        return best.plan.num_reused() if best else 0


def find_sources(
    bases: Sequence[Base], runner: Runner, tokens: Sequence[int], policy: Policy, speaker: str
) -> Sources:
    """What the pool has for ``tokens``."""
    prefix = best_prefix(bases, runner, tokens, policy)
    if policy is Policy.EXACT or not runner.can_edit:
        return Sources(prefix)
    least = (prefix.plan.prefix if prefix else 0) + MIN_GAIN
    return Sources(prefix, _best_edit(bases, tokens, policy, speaker, least))


def best_prefix(
    bases: Sequence[Base], runner: Runner, tokens: Sequence[int], policy: Policy
) -> Source | None:
    """The base that gives back the longest start of ``tokens``, in use or not."""
    best: Source | None = None
    for sequence_id, base in enumerate(bases):
        length = min(common_prefix(base.tokens, tokens), len(tokens) - 1)
        if policy is Policy.EXACT:
            length = min(length, base.num_exact)
        least = best.plan.prefix if best else 0
        if length <= least:
            continue
        if runner.can_resume(sequence_id, length, len(base.tokens)):
            best = Source(sequence_id, ReusePlan(length))
        elif (checkpoint := base.checkpoint_before(length)) and checkpoint.length > least:
            best = Source(sequence_id, ReusePlan(checkpoint.length), checkpoint)
    return best


def _best_edit(
    bases: Sequence[Base], tokens: Sequence[int], policy: Policy, speaker: str, least: int
) -> Source | None:
    """The idle base of which the most can be kept by moving chunks, at least ``least`` tokens.
    One that is too short for that is not looked into."""
    best: Source | None = None
    for sequence_id, base in enumerate(bases):
        if base.in_use or not base.is_whole or min(len(base.tokens), len(tokens) - 1) < least:
            continue
        plan = plan_reuse(base.tokens, tokens, policy, speakers=(base.speaker, speaker))
        if plan.chunks and plan.num_reused() >= least:
            best, least = Source(sequence_id, plan), plan.num_reused() + 1
    return best
