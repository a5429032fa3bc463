"""Character cards: every format, and nothing that a stranger's file could do."""

import base64
import json
import struct
import zlib
from pathlib import Path

import pytest

from innkeeper.cards import Cards, fill, read_card
from innkeeper.demo import MODEL
from innkeeper.errors import InvalidRequestError, NotFoundError

V1 = {
    "name": "Mira",
    "description": "d",
    "scenario": "s",
    "first_mes": "Hi",
    "mes_example": "<START>\nx",
}


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG without a picture."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in (*chunks, (b"IEND", b"")):
        checksum = zlib.crc32(kind + data)
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum))
    return b"".join(parts)


def text_chunk(keyword: bytes, card: object) -> tuple[bytes, bytes]:
    return b"tEXt", keyword + b"\0" + base64.b64encode(json.dumps(card).encode())


@pytest.mark.parametrize("wrap", [False, True])
def test_both_formats_are_read(wrap: bool) -> None:
    card = read_card(json.dumps({"spec": "chara_card_v2", "data": V1} if wrap else V1).encode())
    assert (card.name, card.greeting, card.context) == ("Mira", "Hi", "d\n\ns\n\nx")


def test_the_newer_card_of_a_picture_wins() -> None:
    old, new = text_chunk(b"chara", V1), text_chunk(b"ccv3", {"data": {**V1, "name": "Neu"}})
    assert read_card(png(old)).name == "Mira"
    assert read_card(png(old, new)).name == "Neu"


def test_the_built_in_character_is_a_card() -> None:
    card = read_card(MODEL.with_name("character.json").read_bytes())
    assert card.name == "Mara" and card.unused == ("character_book",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"name": 5}',
        b'{"name": "a", "description": []}',
        b"[" * 100_000,
        png(),
        png((b"tEXt", b"chara\0!")),
        png((b"tEXt", b"chara\0" + base64.b64encode(b"\xff"))),
        b"\x89PNG\r\n\x1a\n\xff\xff\xff\xfftEXtchara\0",
    ],
)
def test_what_is_no_card_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequestError):
        read_card(data)


def test_macros_are_names_and_nothing_else() -> None:
    text = "{{Char}} meets <USER>{{// a note}} at {{time}}"
    assert fill(text, user="{{char}}", char="Mira") == "Mira meets {{char}} at {{time}}"


def test_a_card_that_is_dropped_in_is_there(tmp_path: Path) -> None:
    cards = Cards(tmp_path)
    assert cards.names() == []
    (tmp_path / "Mira.json").write_text(json.dumps(V1))
    (tmp_path / "notes.txt").write_text("x")
    assert cards.names() == ["Mira"] and cards.find("mira").name == "Mira"


@pytest.mark.parametrize("name", ["../Mira", "/etc/passwd", "", "Mira.json", "sub/x"])
def test_a_path_is_no_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.json").write_text(json.dumps(V1))
    (tmp_path.parent / "Mira.json").write_text(json.dumps(V1))
    with pytest.raises(NotFoundError):
        Cards(tmp_path).find(name)
