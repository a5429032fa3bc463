"""The ways in which people write a repository."""

import pytest

from innkeeper.errors import InvalidRequestError
from innkeeper.hub.address import looks_remote, parse_address


@pytest.mark.parametrize(
    ("text", "repo_id", "wanted"),
    [
        ("org/name", "org/name", None),
        (" org/name:Q4_K_M ", "org/name", "Q4_K_M"),
        ("https://huggingface.co/org/name", "org/name", None),
        ("https://huggingface.co/org/name/tree/main", "org/name", None),
        ("https://hf-mirror.example/org/na.me/blob/main/a/m.gguf", "org/na.me", "a/m.gguf"),
        ("huggingface.co/org/name/resolve/main/m.gguf?download=true", "org/name", "m.gguf"),
        ("hf.co/org/name:Q8_0", "org/name", "Q8_0"),
    ],
)
def test_a_repository_is_understood(text: str, repo_id: str, wanted: str | None) -> None:
    assert looks_remote(text)
    assert parse_address(text) == (repo_id, wanted)


@pytest.mark.parametrize(
    "text",
    ["model.gguf", "./a/b/c.gguf", "/models/m.gguf", "C:\\m.gguf", "", "./m", "../m", "a/m.gguf"],
)
def test_a_path_is_no_repository(text: str) -> None:
    assert not looks_remote(text)


@pytest.mark.parametrize("text", ["https://huggingface.co/", "hf.co/org/name/blob/main/x.bin"])
def test_an_address_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="org/name"):
        parse_address(text)
