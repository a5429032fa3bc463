"""Recurrent, hybrid and windowed models: a changed chat is read again from a checkpoint on,
and says what it says after a fresh reading."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import llama_cpp
import numpy as np
import pytest

from innkeeper.core import SamplingParams, Timings
from innkeeper.core.frames import Cancel, Failed, Finished
from innkeeper.engine.reuse import Policy
from tests.chat_edits import EditedChat
from tests.model.test_edit_sequences import TOLERANCE, Reader
from tests.model.test_llama_backend import (
    CARD,
    MESSAGES,
    Session,
    assert_same_or_near_tie,
    reference,
)

NAMES = ("mamba", "jamba", "lfm2", "gemma3")
CHAT = CARD + "".join(MESSAGES)
ASK = "Guest: Is there a room for the night?\nMira:"


@pytest.fixture(params=NAMES)
def path(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Path:
    return tiny_models[request.param]


@pytest.fixture
def open_session() -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def make(path: Path, **fields: object) -> Session:
        f32 = {"kv_type_k": "f32", "kv_type_v": "f32", "ram_cache_bytes": 1 << 26}
        sessions.append(Session(path, **{**f32, **fields}))
        return sessions[-1]

    yield make
    for session in sessions:
        session.runner.close()


class Chatter:
    """Sends prompts one after the other, and holds each reply against a fresh reading."""

    def __init__(self, session: Session, path: Path) -> None:
        self.session = session
        self._path = path

    def say(self, prompt: str) -> Timings:
        request_id = self.session.submit(prompt, logprobs=0)
        self.session.run()
        expected = reference(self._path, prompt, llama_cpp.GGML_TYPE_F32)
        assert_same_or_near_tie(self.session.tokens(request_id), expected)
        self.reply = self.session.text(request_id)
        self.session.engine.cache.check()
        timings = self.session.finished(request_id).timings
        assert timings.cache_approx_n == 0
        return timings


@pytest.fixture
def chatter(path: Path, open_session: Callable[..., Session]) -> Chatter:
    return Chatter(open_session(path), path)


def test_regenerate_and_swipe_read_one_token(chatter: Chatter) -> None:
    first = chatter.say(CHAT + ASK)
    assert first.cache_n == 0
    for _ in range(3):
        again = chatter.say(CHAT + ASK)
        assert (again.cache_n, again.prompt_n) == (first.prompt_n - 1, 1)


def test_an_edited_last_message_is_read_and_little_more(chatter: Chatter) -> None:
    first = chatter.say(CHAT + ASK)
    edited = chatter.say(CHAT + ASK.replace("room", "stable"))
    assert 0 < edited.prompt_n < 150 < first.prompt_n
    # once a prompt has been left at a place, the next one goes on from there
    again = chatter.say(CHAT + ASK.replace("room", "bed"))
    assert again.prompt_n < 40


def test_continue_and_the_next_turn_keep_the_chat(chatter: Chatter) -> None:
    num_prompt = chatter.say(CHAT + ASK).prompt_n
    reply = chatter.reply
    assert chatter.say(CHAT + ASK + reply).cache_n >= num_prompt - 1
    assert chatter.say(CHAT + ASK + reply + "\n" + ASK).cache_n >= num_prompt - 1
    assert chatter.say(CHAT + ASK + reply[: len(reply) // 2] + " Well").cache_n >= num_prompt - 1


def test_the_card_stays_while_old_messages_fall_out(chatter: Chatter) -> None:
    for first in range(4):
        timings = chatter.say(CARD + "".join(MESSAGES[first : first + 4]) + ASK)
        if first > 1:
            assert (
                timings.cache_n
                > len(
                    chatter.session.runner.tokenizer.encode(
                        CARD, add_special=True, parse_special=True
                    )
                )
                - 8
            )


def test_an_earlier_branch_goes_on_beside_the_later_one(chatter: Chatter) -> None:
    num_prompt = chatter.say(CHAT + ASK).prompt_n
    first = chatter.reply
    chatter.say(CHAT + ASK + " No.\n" + ASK)
    chatter.say(CHAT + ASK + " Yes.\n" + ASK)
    assert chatter.say(CHAT + ASK + first + "\n" + ASK).cache_n >= num_prompt - 1
    assert chatter.say(CHAT + ASK + " No.\n" + ASK).prompt_n == 1


def test_branches_that_run_at_once_share_the_prompt(
    path: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(path)
    session.submit(CHAT + ASK, max_tokens=3)
    session.run()
    ids = [session.submit(CHAT + ASK, logprobs=0) for _ in range(4)]
    session.run()
    expected = reference(path, CHAT + ASK, llama_cpp.GGML_TYPE_F32)
    for request_id in ids:
        assert_same_or_near_tie(session.tokens(request_id), expected)
        assert session.finished(request_id).timings.prompt_n == 1
    session.engine.cache.check()


def test_a_prompt_cancelled_anywhere_is_read_on(
    path: Path, open_session: Callable[..., Session]
) -> None:
    session = open_session(path, max_ubatch=32)
    expected = reference(path, CHAT + ASK, llama_cpp.GGML_TYPE_F32)
    for num_steps in (1, 2, 5, 9, 14, 20, 30):
        session.engine.cache.drop_idle()
        request_id = session.submit(CHAT + ASK)
        for _ in range(num_steps):
            session.engine.step()
        session.engine.inbox.put(Cancel(request_id))
        session.run()
        session.engine.cache.check()
        again = session.submit(CHAT + ASK, logprobs=0)
        session.run()
        assert_same_or_near_tie(session.tokens(again), expected)
        assert session.finished(again).timings.cache_n > 0


def test_random_chats_equal_a_fresh_reading(path: Path) -> None:
    """Logits behind prompts that were edited, cut short and branched."""
    reader, fresh = Reader(path), Reader(path)
    num_whole = 0
    # its last norm makes logits eight times as large: slices of 7 and of 100 tokens differ by 3e-3
    tolerance = 5 * TOLERANCE if "gemma3" in path.name else TOLERANCE
    for seed in range(8):
        rng = Random(seed)
        chat = EditedChat(rng)
        for _ in range(10):
            chat.edit()
            chat.fit(600)
            tokens = chat.prompt()
            stop_at = rng.choice((1 << 30, rng.randrange(len(tokens))))
            logits, is_exact = reader.read(tokens, Policy.FAST, chat.speaker, stop_at)
            assert is_exact
            if logits is not None:
                num_whole += 1
                assert np.abs(logits - fresh.fresh(tokens)).max() < tolerance
    assert num_whole > 25
    assert reader.num_cached > 10_000
    reader.runner.close()
    fresh.runner.close()


def test_requests_that_come_and_go_never_end_the_engine(
    path: Path, open_session: Callable[..., Session]
) -> None:
    """A small pool, little memory for checkpoints, several chats at once; then all is as ever."""
    session = open_session(
        path, num_ctx=512, num_pool=1100, max_sequences=3, max_kept=2, ram_cache_bytes=1 << 20
    )
    rng = Random(1)
    open_ids: list[int] = []
    for _ in range(150):
        if rng.random() < 0.6 or not open_ids:
            first, last = rng.choice(((0, 2), (0, 3), (1, 3), (1, 4)))
            chat = CARD[: rng.choice((100, 160))] + "".join(MESSAGES[first:last])
            sampling = SamplingParams(temperature=1, seed=rng.randrange(100))
            number, limit = rng.choice((1, 1, 2)), rng.randrange(20)
            open_ids.append(
                session.submit(chat + ASK, n=number, max_tokens=limit, sampling=sampling)
            )
        else:
            session.engine.inbox.put(Cancel(open_ids.pop(rng.randrange(len(open_ids)))))
        for _ in range(rng.randrange(6)):
            session.engine.step()
            session.engine.cache.check()
    session.run()
    assert not [frame for frame in session.frames if isinstance(frame, Failed)]
    ends = [frame for frame in session.frames if isinstance(frame, Finished)]
    num_cached = sum(end.timings.cache_n for end in ends)
    assert num_cached > sum(end.timings.prompt_n for end in ends) / 2
    prompt = CARD + "".join(MESSAGES[:2]) + ASK
    last = session.submit(prompt, logprobs=0)
    session.run()
    expected = reference(path, prompt, llama_cpp.GGML_TYPE_F32)
    assert_same_or_near_tie(session.tokens(last), expected)
