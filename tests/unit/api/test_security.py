"""Host, Origin and key."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from innkeeper.api import Access
from innkeeper.api.security import check_host, check_origin
from innkeeper.errors import ForbiddenError
from tests.unit.api.gateway import Gateway


def headers(**named: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:5000", "LOCALHOST:5000", "127.0.0.1", "127.0.0.1:80", "[::1]:5000"],
)
def test_loopback_hosts_pass(host: str) -> None:
    assert check_host(headers(host=host), Access()) == host.lower()


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.com",
        "evil.com:5000",
        "localhost.evil.com",
        "localhost.",
        "127.0.0.1.evil.com",
        "127.0.0.1@evil.com",
        "evil.com@127.0.0.1",
        "0.0.0.0:5000",
        "[::]:5000",
        "192.168.1.5",
        "127.1",
        "0x7f.1",
        "2130706433",
        "[::ffff:192.168.1.5]",
        "localhost:99999999",
        "localhost/..",
        "localhost#",
        "http://localhost",
    ],
)
def test_other_hosts_do_not(host: str) -> None:
    with pytest.raises(ForbiddenError):
        check_host(headers(host=host), Access())


def test_two_hosts_or_none_are_refused() -> None:
    for given in ([], headers(host="localhost") * 2):
        with pytest.raises(ForbiddenError):
            check_host(given, Access())


def test_configured_names_and_addresses_pass() -> None:
    open_to_lan = Access(hosts=frozenset({"inn.local"}), any_address=True)
    for host in ("inn.local:5000", "192.168.1.5:5000", "[fe80::1]"):
        assert check_host(headers(host=host), open_to_lan) == host
    with pytest.raises(ForbiddenError):
        check_host(headers(host="evil.com"), open_to_lan)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "http://evil.com",
        "http://127.0.0.1:5001",
        "http://localhost",
        "http://127.0.0.1:5000.evil.com",
        "file://",
    ],
)
def test_foreign_origins_are_refused(origin: str) -> None:
    with pytest.raises(ForbiddenError):
        check_origin(headers(origin=origin), "127.0.0.1:5000", Access())


def test_own_and_allowed_origins_pass() -> None:
    access = Access(origins=frozenset({"http://127.0.0.1:7860"}))
    assert check_origin([], "127.0.0.1:5000", access) is None
    own = headers(origin="http://127.0.0.1:5000")
    assert check_origin(own, "127.0.0.1:5000", access) is None
    allowed = headers(origin="http://127.0.0.1:7860")
    assert check_origin(allowed, "127.0.0.1:5000", access) == "http://127.0.0.1:7860"


def test_cross_site_request_without_origin_is_refused() -> None:
    with pytest.raises(ForbiddenError):
        check_origin(headers(sec_fetch_site="cross-site"), "localhost", Access())


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    access = Access(api_key="sésame", origins=frozenset({"http://127.0.0.1:7860"}))
    with Gateway(tmp_path_factory.mktemp("models"), access=access) as running:
        yield running


ROUTES = [
    ("GET", "/v1/models"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/internal/encode"),
    ("POST", "/v1/internal/model/unload"),
    ("GET", "/props"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/nope"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_key_is_asked_everywhere(locked: Gateway, method: str, path: str) -> None:
    with locked.client() as client:
        for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}):
            response = client.request(method, path, headers=given)
            assert response.status_code == 401
            assert "key" in response.json()["error"]["message"]


def test_health_is_open(locked: Gateway) -> None:
    with locked.client() as client:
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize("name", ["x-api-key", "api-key", "x-admin-key", "authorization"])
def test_every_header_that_clients_use_takes_the_key(locked: Gateway, name: str) -> None:
    value = ("Bearer " if name == "authorization" else "") + "sésame"
    with locked.client() as client:
        response = client.get("/v1/models", headers=[(name.encode(), value.encode())])
        assert response.status_code == 200


def test_empty_key_is_fine_when_none_is_configured(client: httpx.Client) -> None:
    assert client.get("/v1/models", headers={"authorization": "Bearer"}).status_code == 200


def test_foreign_page_can_neither_ask_nor_read(client: httpx.Client) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        response = client.request(method, "/v1/models", headers={"origin": "http://evil.com"})
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


def test_allowed_page_gets_its_preflight_and_answers(locked: Gateway) -> None:
    page = {"origin": "http://127.0.0.1:7860"}
    with locked.client() as client:
        preflight = client.options("/v1/completions", headers=page)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == page["origin"]
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        answer = client.get("/health", headers=page)
        assert answer.headers["access-control-allow-origin"] == page["origin"]
        assert "access-control-allow-credentials" not in answer.headers


def test_a_public_page_may_ask_for_headers_and_this_network(locked: Gateway) -> None:
    asked = {
        "origin": "http://127.0.0.1:7860",
        "access-control-request-headers": "client-agent, genkey",
        "access-control-request-private-network": "true",
    }
    with locked.client() as client:
        allowed = client.options("/api/extra/generate/stream", headers=asked).headers
        assert "client-agent, genkey" in allowed["access-control-allow-headers"]
        assert "PUT" in allowed["access-control-allow-methods"]
        assert allowed["access-control-allow-private-network"] == "true"


def test_rebound_name_reaches_nothing(client: httpx.Client) -> None:
    response = client.get("/health", headers={"host": "evil.com"})
    assert response.status_code == 403


def test_small_body_limit_is_honoured(tmp_path: Path) -> None:
    with (
        Gateway(tmp_path, access=Access(max_body_bytes=100)) as gateway,
        gateway.client() as client,
    ):
        response = client.post("/v1/completions", json={"prompt": "x" * 100})
        assert response.status_code == 413
