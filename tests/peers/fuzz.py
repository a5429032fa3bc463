"""Random requests to every route: ``python -m tests.peers.fuzz 10000 [SEED]``.

A right answer is one of the statuses that were designed; a refusal has the shape of its dialect's
errors, and one for a body names a field. Anything else is printed, and the exit code is 1. The
engine must be the same one at the end.
"""

import contextlib
import json
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx

from innkeeper.api.dialects import dialect_of
from innkeeper.api.fields import FIELDS, NOT_APPLIED
from tests.unit.api.gateway import Gateway

DESIGNED = frozenset({200, 204, 400, 401, 403, 404, 405, 413, 422, 429, 501, 503})
"""501 for what a dialect has and this server does not, 503 while nothing is loaded."""
FIELDLESS = ("not valid JSON", "the body must be ", "nested too deeply", "not supported")
_KEPT_OUT = ("/innkeeper/v1/load/events",)
_NO_BODY = ("/health",)
"""Where an error status is an ordinary answer."""
_UNLOADING = ("keep_alive",)
_GOOD: dict[str, Any] = {
    "prompt": "hi",
    "messages": [{"role": "user", "content": "hi"}],
    "text": "hey",
    "tokens": [1],
    "ids": [1],
    "content": "hi",
    "input": "hi",
    "query": "hi",
    "documents": ["a", "b"],
    "model": "fake",
    "model_name": "fake",
    "input_prefix": "a",
    "input_suffix": "b",
}


class Fuzzer:
    """Requests from one seed."""

    def __init__(self, seed: int, routes: list[tuple[str, str, list[str]]]) -> None:
        self._dice = random.Random(seed)
        self._routes = routes
        self._names = sorted({name for field in (*FIELDS, *NOT_APPLIED) for name in field.names})

    def request(self) -> tuple[str, str, bytes]:
        """Method, path and body."""
        dice = self._dice
        method, path, names = dice.choice(self._routes)
        if dice.random() < 0.05:
            return method, path, bytes(dice.randrange(256) for _ in range(dice.randrange(200)))
        known = names * 3 + self._names
        body = {name: self._value() for name in dice.sample(known, dice.randrange(1, 5))}
        if dice.random() < 0.8:
            body = {**_GOOD, **body}
        for limit in ("max_tokens", "max_length", "n_predict", "max_output_tokens"):
            body.setdefault(limit, 2)
        if isinstance(body.get("options", {}), dict):
            body["options"] = {"num_predict": 2, **body.get("options", {})}
        return method, path, json.dumps(body).encode()

    def names_at(self, path: str, body: bytes) -> set[str]:
        """The fields that ``path`` has, and those that ``body`` has."""
        found = {name for _, other, names in self._routes if other == path for name in names}
        with contextlib.suppress(ValueError):
            found |= set(json.loads(body))
        return found.union(self._names)

    def _value(self, depth: int = 0) -> Any:
        dice = self._dice
        plain = (None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 1e308, 5e-324)
        odd = (float("nan"), float("inf"), dice.random(), "", "1,2,3", "\ud800\U0001f600\0", "json")
        long = "x" * dice.choice((1, 100, 10000))
        chat = [{"role": "user", "content": "hi"}]
        kind = dice.randrange(10)
        if depth < 4 and kind == 0:
            return [self._value(depth + 1) for _ in range(dice.randrange(4))]
        if depth < 4 and kind == 1:
            names = ("a", "1", "role", "content", "type", "text", "function", "name", "ctx_size")
            return {dice.choice(names): self._value(depth + 1) for _ in range(dice.randrange(4))}
        return dice.choice((*plain, *odd, long, chat))


def routes_of(client: httpx.Client) -> list[tuple[str, str, list[str]]]:
    """Method, path and body fields of every route in the OpenAPI document."""
    return list(_routes(client.get("/openapi.json").json()))


def _routes(document: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    for path, operations in document["paths"].items():
        if path in _KEPT_OUT:
            continue
        for method, about in operations.items():
            content = about.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema", {})
            plain = path.replace("{model_id}", "fake").replace("{slot_id}", "0")
            names = [name for name in schema.get("properties", {}) if name not in _UNLOADING]
            queried = [each["name"] for each in about.get("parameters", ())]
            yield method.upper(), plain, [*names, *queried]


def judge(answer: httpx.Response, path: str, names: Iterable[str]) -> str | None:
    """What is wrong with an answer; None if nothing is. names: the fields of ``path``."""
    if answer.status_code not in DESIGNED:
        return f"status {answer.status_code}"
    if answer.status_code < 400 or path in _NO_BODY:
        return None
    message = message_of(answer, path)
    if message is None:
        return "an error of another dialect's shape"
    if answer.status_code not in (400, 422) or any(words in message for words in FIELDLESS):
        return None
    if dialect_of(path) == "openai":
        return None if answer.json()["error"]["param"] else "a refusal that names no field"
    named = any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", message) for name in names)
    return None if named else "a refusal that names no field"


def message_of(answer: httpx.Response, path: str) -> str | None:
    """The text of an error, if it has the shape of ``path``'s dialect."""
    try:
        match dialect_of(path), answer.json():
            case "kobold", {"detail": {"msg": str(message), "type": str()}}:
                return message
            case "ollama", {"error": str(message)}:
                return message
            case "tabby", {"detail": str(message)}:
                return message
            case "anthropic", {"type": "error", "error": {"type": str(), "message": str(message)}}:
                return message
            case "llama.cpp", {"error": {"code": int(), "message": str(message), "type": str()}}:
                return message
            case "openai", {"error": {"message": str(message), "type": str(), "param": _}}:
                return message
    except ValueError:
        pass
    return None


def run(count: int, seed: int, folder: Path) -> tuple[Counter[int], list[str]]:
    """Statuses of ``count`` requests, and every answer that is wrong."""
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    with Gateway(folder) as gateway, gateway.client() as client:
        link = gateway.models.link
        fuzzer = Fuzzer(seed, routes_of(client))
        for _ in range(count):
            method, path, body = fuzzer.request()
            if path.endswith("/unload"):
                continue
            answer = client.request(method, path, content=body)
            statuses[answer.status_code] += 1
            if (problem := judge(answer, path, fuzzer.names_at(path, body))) is not None:
                wrong.append(f"{problem}: {method} {path} {body[:300]!r} -> {answer.text[:300]}")
        if gateway.models.link is not link or not (link and link.alive):
            wrong.append("the engine was restarted or replaced")
    return statuses, wrong


if __name__ == "__main__":
    number = int(sys.argv[1])
    found, problems = run(number, int((sys.argv[2:] or ["1"])[0]), Path(tempfile.mkdtemp()))
    print(dict(found))
    print("\n".join(problems[:20]), f"{len(problems)} wrong answers of {number}")
    sys.exit(1 if problems else 0)
