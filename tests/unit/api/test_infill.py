"""``/infill``, and Ollama's ``suffix``: the gap in a text."""

from collections.abc import Iterator

import httpx
import pytest

from tests.unit.api.gateway import Gateway

GAP = {"input_prefix": "def a(", "input_suffix": "): pass", "n_predict": 4, "debug": True}


@pytest.fixture(scope="module")
def filler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with (
        Gateway(tmp_path_factory.mktemp("models"), fill="yes") as running,
        running.client() as client,
    ):
        yield client


def test_the_prompt_marks_both_sides_of_the_gap(filler: httpx.Client) -> None:
    answer = filler.post("/infill", json=GAP).json()
    assert answer["debug"]["tokens"] == [256, 1, *b"def a(", 2, *b"): pass", 3]
    assert len(answer["content"]) == 4 and answer["warnings"] == []


def test_other_files_and_a_beginning_come_before_the_gap(filler: httpx.Client) -> None:
    more = {"input_extra": [{"filename": "x.py", "text": "X"}], "prompt": "self"}
    answer = filler.post("/infill", json={**GAP, **more}).json()
    assert bytes(answer["debug"]["tokens"][2:19]) == b"x.py\nX\n\ndef a(sel"


def test_a_stream_joins_to_the_whole(filler: httpx.Client) -> None:
    greedy = {**GAP, "temperature": 0}
    whole = filler.post("/infill", json=greedy).json()["content"]
    text = filler.post("/infill", json={**greedy, "stream": True}).text
    assert whole in "".join(part.split('"')[0] for part in text.split('"content":"')[1:])


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "input_prefix"), ({"input_prefix": 5}, "input_prefix"), ({**GAP, "input_extra": 5}, "")],
)
def test_bad_fields_are_refused(filler: httpx.Client, body: dict[str, object], field: str) -> None:
    answer = filler.post("/infill", json=body)
    assert answer.status_code == 400 and field in answer.json()["error"]["message"]


def test_a_model_that_fills_no_gaps_says_so(client: httpx.Client) -> None:
    answer = client.post("/infill", json=GAP)
    assert answer.status_code == 501 and "fake was not trained to fill gaps" in answer.text


def test_ollamas_suffix_is_the_text_behind_a_gap(
    filler: httpx.Client, client: httpx.Client
) -> None:
    body = {"model": "fake", "prompt": "def a(", "suffix": "): pass", "stream": False}
    body |= {"options": {"num_predict": 4}, "debug": True, "system": "Be brief."}
    answer = filler.post("/api/generate", json=body).json()
    assert answer["debug"]["tokens"] == [256, 1, *b"def a(", 2, *b"): pass", 3]
    assert len(answer["response"]) == 4
    assert ["system" in warning for warning in answer["warnings"]] == [True]
    assert "insert" in filler.post("/api/show", json={"model": "fake"}).json()["capabilities"]
    refused = client.post("/api/generate", json=body)
    assert refused.status_code == 501 and "suffix" in refused.json()["error"]
