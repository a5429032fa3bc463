"""The reuse planner: what it keeps is equal, in order, and as much as an edit allows."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innkeeper.engine.reuse import (
    MIN_CHUNK,
    REPAIR,
    Chunk,
    EditKind,
    Policy,
    common_prefix,
    edit_kind,
    plan_reuse,
)


def message(number: int, length: int = 50) -> list[int]:
    return [number * 1000 + i for i in range(length)]


CARD = message(0, 100)
CHAT = [message(n) for n in range(1, 9)]


def join(*parts: list[int]) -> list[int]:
    return [token for part in parts for token in part]


def test_old_messages_fall_out() -> None:
    plan = plan_reuse(join(CARD, *CHAT), join(CARD, *CHAT[2:], message(9)), Policy.FAST)
    assert plan.prefix == 100
    assert plan.chunks == (Chunk(200 + REPAIR, 100 + REPAIR, 300 - REPAIR),)


def test_lore_comes_in_below_the_card() -> None:
    plan = plan_reuse(join(CARD, *CHAT), join(CARD, message(99), *CHAT, message(9)), Policy.FAST)
    assert plan.chunks == (Chunk(100 + REPAIR, 150 + REPAIR, 400 - REPAIR),)


def test_note_moves_up_by_one_message() -> None:
    note = message(77, 40)
    old = join(CARD, *CHAT[:5], note, *CHAT[5:])
    new = join(CARD, *CHAT[:6], note, *CHAT[6:], message(9))
    plan = plan_reuse(old, new, Policy.FAST)
    evaluated = len(new) - plan.num_reused()
    assert evaluated == 50 + 40 + 2 * REPAIR  # the new message, the note, two chunks repaired
    assert plan.prefix == 350


def test_exact_keeps_the_prefix_alone_and_only_what_is_exact() -> None:
    old, new = join(CARD, *CHAT), join(CARD, *CHAT[:3], message(9))
    assert plan_reuse(old, new, Policy.EXACT).prefix == 250
    assert plan_reuse(old, new, Policy.EXACT, num_exact=120).prefix == 120


def test_another_card_is_only_crossed_when_asked_for() -> None:
    old, new = join(message(50, 80), *CHAT), join(message(60, 80), *CHAT, message(9))
    assert plan_reuse(old, new, Policy.FAST).num_reused() == 0
    assert plan_reuse(old, new, Policy.TURBO).num_reused() == 400 - REPAIR


@pytest.mark.parametrize(
    ("speakers", "length"), [(("Mira", "Bram"), 40), (("", ""), 80)], ids=["named", "unnamed"]
)
def test_a_card_below_lore_is_a_card(speakers: tuple[str, str], length: int) -> None:
    name, other_name, lore = [1, 2], [3], message(98, 60)
    old = join(CARD, name, lore, message(50, length), *CHAT)
    new = join(CARD, other_name, lore, message(60, length), *CHAT, message(9))
    plan = plan_reuse(old, new, Policy.FAST, speakers=speakers)
    assert plan.num_reused() == 100 + 60 - REPAIR
    plan = plan_reuse(old, new, Policy.TURBO, speakers=speakers)
    assert plan.num_reused() == 100 + 60 + 400 - 2 * REPAIR


def test_another_speaker_has_a_card_behind_lore_that_only_one_has() -> None:
    lore, more_lore = message(98, 60), message(97, 60)
    old = join(CARD, lore, message(50, 80), *CHAT)
    new = join(CARD, more_lore, lore, message(60, 80), *CHAT, message(9))
    plan = plan_reuse(old, new, Policy.FAST, speakers=("Mira", "Bram"))
    assert plan.num_reused() == 100 + 60 - REPAIR


def test_reuse_stops_at_the_first_edit_that_is_not_allowed() -> None:
    other = message(60, 80)
    old = join(CARD, message(50, 80), *CHAT)
    new = join(CARD, other, *CHAT[2:], message(9))
    assert plan_reuse(old, new, Policy.AUTO).num_reused() == 100
    assert plan_reuse(old, new, Policy.TURBO).num_reused() == 100 + 300 - REPAIR


def test_text_that_repeats_itself_does_not_lead_astray() -> None:
    chorus = message(5, 64)
    old = join(CARD, chorus, message(1), chorus, message(2), chorus, message(3))
    new = join(CARD, chorus, message(2), chorus, message(3), chorus)
    plan = plan_reuse(old, new, Policy.FAST)
    assert plan.num_reused() >= 100 + 64 + 2 * 50 + 64 - 2 * REPAIR


def test_last_token_is_never_reused() -> None:
    old = join(CARD, *CHAT)
    plan = plan_reuse(old, join(CARD, *CHAT[1:]), Policy.FAST)
    assert plan.num_reused() <= 100 + 350 - REPAIR - 1


@pytest.mark.parametrize(
    ("removed", "inserted", "is_first", "kind"),
    [
        (300, 0, True, EditKind.DELETION),
        (300, 3, False, EditKind.DELETION),
        (0, 120, True, EditKind.INSERTION),
        (100, 120, True, EditKind.CARD),
        (100, 120, False, EditKind.REPLACEMENT),
        (100, 20, True, EditKind.REPLACEMENT),
    ],
)
def test_edits_have_names(removed: int, inserted: int, is_first: bool, kind: EditKind) -> None:
    assert edit_kind(removed, inserted, is_first=is_first) is kind


PARTS = st.lists(
    st.integers(0, 6).map(message) | st.lists(st.integers(0, 3), max_size=20), max_size=8
)


@given(PARTS, PARTS, st.sampled_from(Policy))
@settings(max_examples=300, deadline=None)
def test_whatever_is_kept_is_equal_and_in_order(
    old: list[list[int]], new: list[list[int]], policy: Policy
) -> None:
    cached, prompt = join(*old), [*join(*new), 4]
    plan = plan_reuse(cached, prompt, policy)
    assert cached[: plan.prefix] == prompt[: plan.prefix]
    source = target = plan.prefix
    for chunk in plan.chunks:
        assert chunk.source >= source and chunk.target >= target + REPAIR
        assert chunk.length >= MIN_CHUNK - REPAIR
        kept = cached[chunk.source : chunk.source + chunk.length]
        assert kept == prompt[chunk.target : chunk.target + chunk.length]
        source, target = chunk.source + chunk.length, chunk.target + chunk.length
    assert target < len(prompt)


PIECES = st.lists(
    st.builds(
        lambda number, start, length: message(number)[start : start + length],
        st.integers(0, 4),
        st.integers(0, 20),
        st.integers(1, 50),
    ),
    max_size=7,
)


def windows(tokens: list[int]) -> dict[tuple[int, ...], int]:
    """Where each text of ``MIN_CHUNK`` tokens starts that occurs once."""
    found = [tuple(tokens[i : i + MIN_CHUNK]) for i in range(len(tokens) - MIN_CHUNK + 1)]
    counts = Counter(found)
    return {window: start for start, window in enumerate(found) if counts[window] == 1}


def runs_in_common(cached: list[int], prompt: list[int]) -> set[Chunk]:
    """Every longest run of equal tokens that holds a window which is unique in both."""
    starts, found = windows(prompt), set()
    for window, source in windows(cached).items():
        if (target := starts.get(window)) is None:
            continue
        end = source + MIN_CHUNK
        shift = target - source
        while source and source + shift and cached[source - 1] == prompt[source - 1 + shift]:
            source -= 1
        while (
            end < len(cached) and end + shift < len(prompt) and cached[end] == prompt[end + shift]
        ):
            end += 1
        found.add(Chunk(source, source + shift, end - source))
    return found


def num_kept(runs: Sequence[Chunk]) -> int:
    """Tokens of ``runs`` one behind the other, each cut where it overlaps those before it."""
    total = source = target = 0
    for run in runs:
        cut = max(0, source - run.source, target - run.target)
        if run.length - cut < MIN_CHUNK:
            return 0
        total += run.length - cut
        source, target = run.source + run.length, run.target + run.length
    return total


@given(PIECES, PIECES)
@settings(max_examples=200, deadline=None)
def test_no_choice_of_common_runs_keeps_more(old: list[list[int]], new: list[list[int]]) -> None:
    cached, prompt = join(*old), [*join(*new), 4]
    plan = plan_reuse(cached, prompt, Policy.TURBO)
    prefix = common_prefix(cached, prompt[:-1])
    runs = sorted(runs_in_common(cached[prefix:], prompt[prefix:-1]), key=lambda run: run.target)
    choices = chain.from_iterable(combinations(runs, n) for n in range(len(runs) + 1))
    assert plan.prefix == prefix
    assert sum(chunk.length + REPAIR for chunk in plan.chunks) == max(map(num_kept, choices))
