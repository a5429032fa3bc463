"""What each key allows."""

from collections.abc import Iterator

import pytest

from innkeeper.api import Access
from innkeeper.api.scopes import granted, needed
from tests.unit.api.gateway import Gateway

KEYS = Access(api_key="low", manage_key="middle", admin_key="high")
HEADERS = ("authorization", "x-api-key", "api-key", "x-admin-key")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tmp_path_factory.mktemp("models"), access=KEYS) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/chat/completions", "chat"),
        ("GET", "/v1/internal/model/list", "chat"),
        ("POST", "/v1/internal/model/load", "manage"),
        ("POST", "/v1/model/unload", "manage"),
        ("PUT", "/api/v1/model", "manage"),
        ("POST", "/slots/0", "manage"),
        ("POST", "/api/pull", "admin"),
        ("DELETE", "/api/delete", "admin"),
        ("POST", "/v1/download", "admin"),
    ],
)
def test_routes_need_the_least_that_will_do(method: str, path: str, scope: str) -> None:
    assert needed(method, path) == scope


@pytest.mark.parametrize(
    ("keys", "given", "scope"),
    [
        ((None, None, None), None, "admin"),
        ((None, None, None), "any", "admin"),
        (("a", None, None), None, None),
        (("a", None, None), "a", "admin"),
        (("a", None, "c"), "a", "manage"),
        (("a", None, "c"), "c", "admin"),
        (("a", "b", "c"), "b", "manage"),
        ((None, "b", None), None, "chat"),
        ((None, "b", None), "wrong", "chat"),
        ((None, "b", None), "b", "admin"),
        ((None, None, "c"), None, "manage"),
    ],
)
@pytest.mark.parametrize("header", HEADERS)
def test_a_key_opens_its_scope_and_those_before_it(
    keys: tuple[str | None, ...], given: str | None, scope: str | None, header: str
) -> None:
    value = f"Bearer {given}" if header == "authorization" else given
    headers = [(header.encode(), value.encode())] if given and value else []
    assert granted(headers, keys) == scope


def test_a_key_that_is_too_low_is_told_so(locked: Gateway) -> None:
    with locked.client() as client:
        for path, scope in (("/v1/internal/model/unload", "manage"), ("/api/pull", "admin")):
            refused = client.post(path, headers={"x-api-key": "low"})
            assert refused.status_code == 403 and f"needs {scope}" in refused.text
            assert client.post(path).status_code == 401
            assert client.post(path, headers={"x-api-key": "wrong"}).status_code == 401
        assert client.post("/api/pull", headers={"x-api-key": "high"}).status_code == 400


def test_tabby_clients_learn_what_their_key_allows(locked: Gateway) -> None:
    with locked.client() as client:
        for key, word in (("low", "api"), ("middle", "admin"), ("high", "admin")):
            answer = client.get("/v1/auth/permission", headers={"x-api-key": key})
            assert answer.json() == {"permission": word}
