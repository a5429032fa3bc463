"""What a repository has, how it is grouped, and how searching goes."""

import pytest

from innkeeper.api.errors import status_of
from innkeeper.errors import (
    CorruptModelError,
    InnkeeperError,
    InvalidRequestError,
    NotFoundError,
)
from innkeeper.hub import errors as hub_errors
from innkeeper.hub.client import Hub
from innkeeper.hub.errors import HubAccessError, HubBusyError, HubError, HubUnreachableError
from innkeeper.hub.listing import is_safe_name, list_repo, search
from innkeeper.hub.variants import choose_variant, variants
from tests.hub import Fault, HubFile, LocalHub

SPLIT = {f"big-Q8_0-{part:05d}-of-00003.gguf": b"x" * 30 for part in (1, 2, 3)}
QUANTS = {
    "m-Q4_K_M.gguf": b"x" * 40,
    "m-Q8_0.gguf": b"x" * 80,
    "m.IQ3_XXS.gguf": b"x" * 20,
    "mmproj-m-f16.gguf": b"x" * 9,
    "m.imatrix.gguf": b"x" * 3,
    "README.md": b"# m",
    "config.json": b"{}",
}
SAFETENSORS = {
    "model-00001-of-00002.safetensors": b"x" * 100,
    "model-00002-of-00002.safetensors": b"x" * 60,
    "model.safetensors.index.json": b"{}",
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"x",
    "generation_config.json": b"{}",
    "pytorch_model-00001-of-00002.bin": b"p" * 100,
    "pytorch_model-00002-of-00002.bin": b"p" * 60,
    "training_args.bin": b"p",
    "onnx/model.onnx": b"o",
}


def grouped(hub: Hub, repo_id: str = "org/m") -> dict[str, tuple[int, bool]]:
    """Name -> (bytes, safe)."""
    found = variants(list_repo(hub, repo_id))
    return {variant.name: (variant.size_bytes, variant.is_safe) for variant in found}


def test_each_quantization_is_a_row_and_what_is_no_model_is_none(
    server: LocalHub, hub: Hub
) -> None:
    server.add("org/m", QUANTS)
    assert grouped(hub) == {"IQ3_XXS": (20, True), "Q4_K_M": (40, True), "Q8_0": (80, True)}


def test_a_split_model_is_one_row_and_knows_its_parts_in_order(server: LocalHub, hub: Hub) -> None:
    server.add("org/m", SPLIT | QUANTS)
    [split] = [v for v in variants(list_repo(hub, "org/m")) if len(v.files) > 1]
    assert split.size_bytes == 90
    assert [file.name for file in split.files] == sorted(SPLIT)


def test_two_files_of_one_quantization_keep_their_own_names(server: LocalHub, hub: Hub) -> None:
    server.add("org/m", {"a/m-Q4_K_M.gguf": b"1", "b/m-Q4_K_M.gguf": b"22"})
    assert grouped(hub) == {"a/m-Q4_K_M": (1, True), "b/m-Q4_K_M": (2, True)}


def test_safetensors_are_one_row_with_all_that_they_need_and_no_pickle(
    server: LocalHub, hub: Hub
) -> None:
    server.add("org/m", SAFETENSORS)
    whole = choose_variant(list_repo(hub, "org/m"), None)
    names = {file.name for file in whole.files}
    assert whole.kind == "safetensors"
    assert names == {
        name for name in SAFETENSORS if "." in name and not name.endswith((".bin", ".onnx"))
    }


def test_pickles_are_shown_as_unsafe_and_never_chosen(server: LocalHub, hub: Hub) -> None:
    server.add(
        "org/m", {"pytorch_model.bin": b"p", "config.json": b"{}", "training_args.bin": b"p"}
    )
    assert grouped(hub) == {"pytorch_model.bin": (1, False)}
    with pytest.raises(NotFoundError, match="only PyTorch pickles"):
        choose_variant(list_repo(hub, "org/m"), None)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [(None, "Q4_K_M"), ("Q8_0", "Q8_0"), ("q8_0", "Q8_0"), ("m.IQ3_XXS.gguf", "IQ3_XXS")],
)
def test_a_variant_is_chosen_by_quantization_or_file(
    server: LocalHub, hub: Hub, wanted: str | None, found: str
) -> None:
    server.add("org/m", QUANTS)
    assert choose_variant(list_repo(hub, "org/m"), wanted).name == found


def test_a_quantization_that_is_not_there_names_those_that_are(server: LocalHub, hub: Hub) -> None:
    server.add("org/m", QUANTS)
    with pytest.raises(NotFoundError) as caught:
        choose_variant(list_repo(hub, "org/m"), "Q6_K")
    assert "Q4_K_M" in str(caught.value)


def test_a_split_model_that_lacks_a_part_is_not_chosen(server: LocalHub, hub: Hub) -> None:
    server.add("org/m", {name: b"x" for name in list(SPLIT)[:2]})
    with pytest.raises(CorruptModelError, match="lacks 1 parts"):
        choose_variant(list_repo(hub, "org/m"), "Q8_0")


@pytest.mark.parametrize(
    "name",
    [
        *("../x.gguf", "a/../../x.gguf", "/etc/x.gguf", "a//x.gguf", "./x.gguf", "x.gguf/"),
        *("a\\..\\x.gguf", "C:x.gguf", "x.gguf.", "x.gguf ", " /x.gguf", "nul.gguf", "a/COM1"),
        *("x\0.gguf", "x\n.gguf", "", ".", "..", "a/./b", "?.gguf", "x" * 600),
    ],
)
def test_names_that_could_leave_the_folder_are_left_out(
    server: LocalHub, hub: Hub, name: str
) -> None:
    assert not is_safe_name(name)
    server.add("org/m", {name: HubFile(b"x"), "m-Q4_0.gguf": b"x"})
    assert [file.name for file in list_repo(hub, "org/m").files] == ["m-Q4_0.gguf"]


@pytest.mark.parametrize(
    "name", ["m.gguf", "Q8_0/m-00001-of-00002.gguf", ".gitattributes", "ü.gguf"]
)
def test_ordinary_names_are_kept(name: str) -> None:
    assert is_safe_name(name)


@pytest.mark.parametrize(
    "repo_id", ["m", "../m", "org/..", "a/b/c", "org/m?x=1", "", "org/m.git", "@/x"]
)
def test_what_is_no_repository_name_is_never_sent(server: LocalHub, hub: Hub, repo_id: str) -> None:
    with pytest.raises(InvalidRequestError, match="org/name"):
        list_repo(hub, repo_id)
    assert server.log == []


def test_a_repository_that_does_not_exist_is_named(server: LocalHub, hub: Hub) -> None:
    with pytest.raises(NotFoundError, match="no repository org/none"):
        list_repo(hub, "org/none")


def test_searching_finds_by_words_and_author_the_most_downloaded_first(
    server: LocalHub, hub: Hub
) -> None:
    server.add("ann/Tale-GGUF", {}, downloads=5)
    server.add("bob/Tale-GGUF", {}, downloads=9)
    server.add("bob/Other", {}, downloads=99)
    assert [r.repo_id for r in search(hub, "tale")] == ["bob/Tale-GGUF", "ann/Tale-GGUF"]
    assert [r.repo_id for r in search(hub, "tale", author="ann")] == ["ann/Tale-GGUF"]
    assert [r.repo_id for r in search(hub, author="bob", limit=1)] == ["bob/Other"]


def test_a_hub_that_cannot_be_reached_is_named_with_a_way_out(hf_home: object) -> None:
    hub = Hub("http://127.0.0.1:9", sleep=lambda _: pytest.fail("a dead hub is not waited for"))
    with pytest.raises(HubUnreachableError) as caught:
        list_repo(hub, "org/m")
    assert "127.0.0.1:9" in str(caught.value) and "HF_ENDPOINT" in str(caught.value)


def test_offline_sends_nothing(server: LocalHub) -> None:
    with pytest.raises(HubUnreachableError, match="offline"):
        list_repo(Hub(server.url, is_offline=True), "org/m")
    assert server.log == []


def test_a_busy_hub_is_given_the_time_that_it_asks_for(
    server: LocalHub, hub: Hub, waits: list[float]
) -> None:
    server.add("org/m", QUANTS)
    server.api_faults = [Fault(status=429, headers={"Retry-After": "7"}), Fault(status=503)]
    assert list_repo(hub, "org/m").files
    assert waits == [7.0, 2.0]


def test_a_hub_that_stays_busy_or_asks_for_an_hour_is_an_error(server: LocalHub, hub: Hub) -> None:
    server.add("org/m", QUANTS)
    server.api_faults = [Fault(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(HubBusyError, match="60 min"):
        list_repo(hub, "org/m")
    server.api_faults = [Fault(status=429)] * 10
    with pytest.raises(HubBusyError, match="429"):
        list_repo(hub, "org/m")


@pytest.mark.parametrize(
    "body", [b"<html>log in</html>", b"[]", b"{}", b"null", b'{"id": "org/m", "sha": "x"}']
)
def test_nonsense_instead_of_a_listing_is_an_error(server: LocalHub, hub: Hub, body: bytes) -> None:
    server.api_faults = [Fault(status=200, body=body)]
    with pytest.raises(HubError):
        list_repo(hub, "org/m")


def test_no_token_a_bad_one_and_an_unaccepted_licence_are_three_messages(server: LocalHub) -> None:
    server.tokens = {"good", "stranger"}
    server.add("org/m", QUANTS, gated=True, allowed_tokens=frozenset({"good"}))
    messages = []
    for token in (None, "wrong", "stranger"):
        hub = Hub(server.url, token)
        with pytest.raises(HubAccessError) as caught:
            hub.get_range(hub.file_url("org/m", "m-Q8_0.gguf", "main"), 0, 9, "org/m")
        messages.append(str(caught.value))
    without, bad, stranger = messages
    assert "logged in" in without and f"{server.url}/org/m" in without and "HF_TOKEN" in without
    assert "does not know your access token" in bad and f"{server.url}/settings/tokens" in bad
    assert "licence is accepted" in stranger and f"{server.url}/org/m" in stranger
    allowed = Hub(server.url, "good")
    url = allowed.file_url("org/m", "m-Q8_0.gguf", "main")
    assert allowed.get_range(url, 0, 9, "org/m") == b"x" * 9


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (hub_errors.HubTokenError, 401),
        (hub_errors.HubAccessError, 403),
        (NotFoundError, 404),
        (hub_errors.DownloadPausedError, 409),
        (hub_errors.HubBusyError, 429),
        (hub_errors.WrongContentError, 502),
        (hub_errors.HubError, 502),
        (hub_errors.HubUnreachableError, 503),
        (hub_errors.DiskFullError, 507),
    ],
)
def test_each_cause_has_its_own_http_status(error: type[InnkeeperError], status: int) -> None:
    assert status_of(error("why")) == status
