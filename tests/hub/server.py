"""The local hub: one address that speaks the hub's API, another that sends large files."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub.faults import Fault
from tests.hub.repo import HubFile, HubRepo

_PIECE_BYTES = 16 * 1024
_SEND_BUFFER_BYTES = 16 * 1024
"""Small, so that the log knows what was really taken by the client, within some KiB."""


@dataclass
class Seen:
    """One request that came in."""

    door: str
    method: str
    path: str
    range: str | None
    token: str | None
    num_sent: int = 0
    """Bytes of the answer's body."""

    @property
    def start(self) -> int:
        return int(self.range.removeprefix("bytes=").split("-")[0]) if self.range else 0


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: "LocalHub", door: str) -> None:
        self.hub = hub
        self.door = door
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave in the middle are what these tests are about."""


class LocalHub:
    """Repositories behind HTTP. ``log`` has every request, ``faults`` what goes wrong next."""

    def __init__(self, *, latency_seconds: float = 0.0, bytes_per_second: float = 0.0) -> None:
        self.repos: dict[str, HubRepo] = {}
        self.tokens: set[str] = set()
        """Valid ones."""
        self.faults: list[Fault] = []
        self.api_faults: list[Fault] = []
        self.log: list[Seen] = []
        self.latency_seconds = latency_seconds
        self.bytes_per_second = bytes_per_second
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self._servers = {door: _Server(self, door) for door in ("hub", "cdn")}
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            for server in self._servers.values()
        ]

    @property
    def url(self) -> str:
        """For ``HF_ENDPOINT``."""
        return self._servers["hub"].url

    @property
    def cdn_url(self) -> str:
        return self._servers["cdn"].url

    def add(self, repo_id: str, files: Mapping[str, bytes | HubFile], **options: Any) -> HubRepo:
        """A repository; bytes become large files unless they are named like settings."""
        made = {
            name: content
            if isinstance(content, HubFile)
            else HubFile(content, is_lfs=not name.endswith((".json", ".md", ".txt")))
            for name, content in files.items()
        }
        self.repos[repo_id] = HubRepo(made, **options)
        return self.repos[repo_id]

    def take_fault(self, door: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.at == door:
                    self.faults.remove(fault)
                    return fault
        return None

    def sent(self, door: str = "cdn") -> int:
        """Bytes of bodies that went out."""
        return sum(seen.num_sent for seen in self.log if seen.door == door)

    def gets(self, door: str = "cdn") -> list[Seen]:
        return [seen for seen in self.log if seen.door == door and seen.method == "GET"]

    def __enter__(self) -> "LocalHub":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stopping.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    seen: Seen

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: ``LocalHub.log`` has it."""

    def do_GET(self) -> None:
        hub = self.server.hub
        given = self.headers.get("authorization")
        self.seen = Seen(
            self.server.door,
            self.command,
            self.path,
            self.headers.get("range"),
            given.removeprefix("Bearer ") if given else None,
        )
        hub.log.append(self.seen)
        time.sleep(hub.latency_seconds)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            if self.server.door == "cdn":
                self._send_large(path)
            elif path.startswith("/api/models"):
                self._answer_api(path, parse_qs(parts.query))
            else:
                self._resolve(path)

    do_HEAD = do_GET

    # --- the API --------------------------------------------------------------------------------

    def _answer_api(self, path: str, query: dict[str, list[str]]) -> None:
        hub = self.server.hub
        if hub.api_faults and (fault := hub.api_faults.pop(0)):
            return self._plain(fault.status or 200, fault.body or b"", **fault.headers)
        if self._has_bad_token():
            return None
        name = path.removeprefix("/api/models").strip("/")
        if not name:
            return self._json(self._search(query))
        repo_id, _, rest = name.partition("/revision/")
        repo = hub.repos.get(repo_id)
        if repo is None:
            return self._refuse(404 if self.seen.token else 401, "RepoNotFound", "Not found")
        if rest not in ("", "main", repo.commit):
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        return self._json(repo.info(repo_id, with_files="blobs" in query))

    def _search(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        words = query.get("search", [""])[0].lower()
        author = query.get("author", [""])[0]
        tags = set(query.get("filter", []))
        found = [
            repo.info(repo_id, with_files=False)
            for repo_id, repo in self.server.hub.repos.items()
            if words in repo_id.lower()
            and author in ("", repo_id.split("/")[0])
            and tags <= set(repo.tags)
        ]
        found.sort(key=lambda info: -info["downloads"])
        return found[: int(query.get("limit", ["1000"])[0])]

    def _has_bad_token(self) -> bool:
        """Answers 401 if there is a token and it is none of the valid ones."""
        if self.seen.token is None or self.seen.token in self.server.hub.tokens:
            return False
        self._refuse(401, None, "Invalid credentials in Authorization header")
        return True

    # --- files ----------------------------------------------------------------------------------

    def _resolve(self, path: str) -> None:
        repo_id, _, rest = path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if self._has_bad_token():
            return None
        repo = self.server.hub.repos.get(repo_id)
        if repo is None:
            return self._refuse(404 if self.seen.token else 401, "RepoNotFound", "Not found")
        if repo.gated and self.seen.token not in repo.allowed_tokens:
            status = 403 if self.seen.token else 401
            return self._refuse(status, "GatedRepo", f"Access to model {repo_id} is restricted.")
        if revision not in ("main", repo.commit):
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        file = repo.files.get(name)
        if file is None:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        about = {"X-Repo-Commit": repo.commit, "ETag": f'"{file.etag}"'}
        if not file.is_lfs:
            return self._send_file(file, about)
        fault = self.server.hub.take_fault("hub")
        place = f"{self.server.hub.cdn_url}/{repo_id}/{revision}/{quote(name)}?signature=s"
        about |= {
            "Location": fault.location if fault and fault.location else place,
            "X-Linked-Etag": f'"{file.etag}"',
            "X-Linked-Size": str(file.size),
            **(fault.headers if fault else {}),
        }
        if fault and fault.status:
            del about["Location"]
            return self._plain(fault.status, fault.body or b"", **about)
        return self._plain(302, b"", **about)

    def _send_large(self, path: str) -> None:
        repo_id, _, name = path.strip("/").partition("/")
        account, (repo_name, _, name) = repo_id, name.split("/", 2)
        self._send_file(self.server.hub.repos[f"{account}/{repo_name}"].files[name], {})

    def _send_file(self, file: HubFile, headers: dict[str, str]) -> None:
        fault = self.server.hub.take_fault(self.server.door) or Fault()
        if fault.location:
            return self._plain(302, b"", Location=fault.location)
        if fault.status or fault.body is not None:
            return self._plain(fault.status or 200, fault.body or b"", **headers, **fault.headers)
        start, end = 0, file.size
        is_part = self.seen.range is not None and not fault.ignore_range
        if is_part:
            first, _, last = (self.seen.range or "").removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else file.size, file.size)
            if start >= file.size:
                return self._plain(416, b"", **{"Content-Range": f"bytes */{file.size}"})
            start += fault.shift
        self.send_response(206 if is_part else 200)
        about = {"Content-Length": str(end - start + fault.stretch), **headers, **fault.headers}
        if is_part:
            about.setdefault("Content-Range", f"bytes {start}-{end - 1}/{file.size}")
        for key, value in about.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(file, start, end, fault)

    def _send_body(self, file: HubFile, start: int, end: int, fault: Fault) -> None:
        if fault.stall:
            self.server.hub.stopping.wait(60)
            self.close_connection = True
            return
        stop = end if fault.cut_after is None else min(end, start + fault.cut_after)
        for piece in self._pieces(file, start, stop, fault):
            self.wfile.write(piece)
            self.seen.num_sent += len(piece)
            if self.server.hub.stopping.is_set():
                break
        if fault.cut_after is not None:
            self.close_connection = True

    def _pieces(self, file: HubFile, start: int, stop: int, fault: Fault) -> Iterator[bytes]:
        rate, began, sent = self.server.hub.bytes_per_second, time.monotonic(), 0
        for place in range(start, stop, _PIECE_BYTES):
            piece = file.read(place, min(_PIECE_BYTES, stop - place))
            if fault.flip and place == start:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            sent += len(piece)
            if rate and (ahead := sent / rate - (time.monotonic() - began)) > 0:
                time.sleep(ahead)
            yield piece
        if fault.stretch:
            yield b"\0" * fault.stretch

    # --- answers --------------------------------------------------------------------------------

    def _json(self, content: Any) -> None:
        self._plain(200, json.dumps(content).encode(), **{"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        body = json.dumps({"error": message}).encode()
        self._plain(status, body, **{"Content-Type": "application/json"}, **headers)

    def _plain(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.seen.num_sent += len(body)
