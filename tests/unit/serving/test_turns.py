"""What is left of a chat that is too long for its context."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from innkeeper.core import GenerateRequest, Message
from innkeeper.errors import PromptTooLongError
from innkeeper.serving.turns import fit_turns, prompt_room
from tests.unit.serving.conftest import MakeModels
from tests.unit.serving.test_generate import loaded, run

CARD = Message("system", "You are Mira.")
NOTE = Message("system", "[Be brief.]")


def chat(num_turns: int) -> list[Message]:
    said = [(f"question {i}", f"answer {i} " + "and so on " * (i % 3)) for i in range(num_turns)]
    pairs = [(Message("user", ask), Message("assistant", answer)) for ask, answer in said]
    turns = [message for pair in pairs for message in pair]
    return [CARD, Message("assistant", "Welcome."), *turns[:-1]]


async def num_letters(messages: Sequence[Message]) -> int:
    return sum(len(message.content or "") for message in messages)


async def test_a_chat_that_fits_stays_whole() -> None:
    messages = chat(9)
    assert await fit_turns(messages, 10_000, num_letters) == (tuple(messages), "")


async def test_old_turns_leave_and_the_card_and_the_newest_stay() -> None:
    messages = chat(40)
    kept, warning = await fit_turns(messages, 500, num_letters)
    num_tokens = await num_letters(kept)
    assert num_tokens <= 500
    assert kept[0] == CARD and kept[1].role == "user"
    assert list(kept[1:]) == messages[-len(kept) + 1 :]
    num_out = len(messages) - len(kept)
    for part in (f"oldest {num_out} of {len(messages)} messages", f"{num_tokens} tokens", "500"):
        assert part in warning


async def test_the_cut_stays_while_the_chat_grows_by_a_block() -> None:
    firsts = []
    for num_turns in range(40, 140):
        kept, _ = await fit_turns(chat(num_turns), 2000, num_letters)
        firsts.append(kept[1].content)
    changes = sum(before != after for before, after in pairwise(firsts))
    assert 1 <= changes <= 8


async def test_every_system_message_stays() -> None:
    messages = chat(40)
    messages.insert(20, NOTE)
    kept, _ = await fit_turns(messages, 500, num_letters)
    assert kept[:2] == (CARD, NOTE)


async def test_no_tool_result_stays_without_its_call() -> None:
    call, result = Message("assistant", None, {"tool_calls": [{}]}), Message("tool", "42")
    messages = [m for i in range(30) for m in (Message("user", f"ask {i}"), call, result)]
    kept, _ = await fit_turns(messages, 60, num_letters)
    assert kept[0].role == "user" and [m.role for m in kept[1:3]] == ["assistant", "tool"]


@pytest.mark.parametrize(
    ("max_tokens", "truncate_to", "room"),
    [(100, None, 900), (None, None, 750), (5000, None, 500), (0, None, 999), (100, 300, 300)],
)
def test_the_reply_has_room_as_far_as_that_makes_sense(
    max_tokens: int | None, truncate_to: int | None, room: int
) -> None:
    request = GenerateRequest(max_tokens=max_tokens, truncate_to=truncate_to)
    assert prompt_room(request, 1000) == room


async def test_a_chat_too_long_is_cut_only_where_that_is_asked_for(
    make_models: MakeModels,
) -> None:
    generate = await loaded(make_models)
    long = GenerateRequest(messages=tuple(chat(20)), max_tokens=8)
    with pytest.raises(PromptTooLongError):
        await run(generate, long)
    for asked in ({"drops_turns": True}, {"truncate_to": 240}):
        request = GenerateRequest(messages=tuple(chat(20)), max_tokens=8, debug=True, **asked)
        _, end = await run(generate, request)
        assert end.debug is not None and "You are Mira." in end.debug.prompt
        assert "question 19" in end.debug.prompt and "question 5<" not in end.debug.prompt
        assert any("messages were left out" in warning for warning in end.warnings)
        assert end.truncated_n == 0 and end.timings.predicted_n == 8


async def test_a_newest_turn_beyond_the_context_names_both_numbers(
    make_models: MakeModels,
) -> None:
    generate = await loaded(make_models)
    messages = (*chat(3), Message("user", "x" * 400))
    with pytest.raises(PromptTooLongError, match="256"):
        await run(generate, GenerateRequest(messages=messages, drops_turns=True))
