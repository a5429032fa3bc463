"""Text while it grows: pieces joined are the whole, and nothing leaks that should not."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from innkeeper.core import TokenLogprob
from innkeeper.engine.reply import ReplyText, find_stop

STOPS = ("\nUser:", "<|im_end|>", "aab", "ab", "🍺!")
TEXTS = st.text(alphabet="ab\nUser:<|im_end>🍺!é ", max_size=60)


def cut_into_pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def run(pieces: list[bytes], stops: tuple[str, ...]) -> tuple[list[str], str | None]:
    reply = ReplyText(stops)
    texts = []
    for piece in pieces:
        texts.append(reply.push(piece).text)
        if reply.stop_text is not None:
            return texts, reply.stop_text
    texts.append(reply.finish().text)
    return texts, None


@given(TEXTS, st.lists(st.integers(0, 300), max_size=12))
def test_pieces_join_to_the_text_up_to_the_stop(text: str, cuts: list[int]) -> None:
    texts, stop = run(cut_into_pieces(text.encode(), cuts), STOPS)
    match = find_stop(text, STOPS)
    expected = text if match is None else text[: match.start]
    assert ("".join(texts), stop) == (expected, match.text if match else None)


@given(TEXTS, st.lists(st.integers(0, 300), max_size=12))
def test_no_prefix_of_a_stop_is_shown_before_it_matches(text: str, cuts: list[int]) -> None:
    shown = ""
    reply = ReplyText(STOPS)
    for piece in cut_into_pieces((text + "\nUser:").encode(), cuts):
        shown += reply.push(piece).text
        if reply.stop_text is not None:
            break
    match = find_stop(text + "\nUser:", STOPS)
    assert match is not None
    assert shown == (text + "\nUser:")[: match.start]


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("xabc", ("abc", "b"), "b"),  # complete first, though it begins later
        ("xabc", ("c", "bc", "abc"), "abc"),  # complete together: the longest
        ("abab", ("bab", "ab"), "ab"),
    ],
)
def test_stop_that_is_complete_first_wins(text: str, stops: tuple[str, ...], expected: str) -> None:
    match = find_stop(text, stops)
    assert match is not None
    assert match.text == expected


def test_incomplete_character_is_held_then_dropped() -> None:
    texts, _ = run([b"a", "🍺".encode()[:2]], ())
    assert "".join(texts) == "a"


def test_broken_bytes_become_one_mark_and_text_goes_on() -> None:
    texts, _ = run([b"a\xff", b"b"], ())
    assert "".join(texts) == "a\ufffdb"


def test_empty_stop_strings_are_no_stops() -> None:
    assert run([b"abc"], ("",)) == (["abc", ""], None)


def test_logprobs_leave_with_their_text_and_not_beyond_the_stop() -> None:
    reply = ReplyText(("STOP",))
    entries = [TokenLogprob(i, p, -0.1) for i, p in enumerate((b"Hi", b" ST", b"OP", b"x"))]
    released = []
    for entry in entries:
        released += reply.push(entry.piece, entry).logprobs
        if reply.stop_text:
            break
    assert [entry.piece for entry in released] == [b"Hi", b" ST"]
