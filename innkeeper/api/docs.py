"""The page at ``/docs``: made here from the OpenAPI document, with no script and no asset."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #222; background: #fff }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818 } }
h2 { margin-top: 2.5rem } summary { cursor: pointer; padding: .3rem 0 }
code, .method { font-family: ui-monospace, monospace }
.method { display: inline-block; width: 4rem; font-weight: bold }
table { border-collapse: collapse; margin: .5rem 0 1rem 4rem; font-size: .9rem }
td, th { text-align: left; vertical-align: top; padding: .15rem .8rem .15rem 0 }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; frame-ancestors 'none'"


def add_docs(app: FastAPI) -> None:
    """Serves ``/docs``."""

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        headers = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff"}
        return HTMLResponse(page(app.openapi()), headers=headers)


def page(document: Mapping[str, Any]) -> str:
    """The whole page. Every text of ``document`` is escaped."""
    info = document["info"]
    title = escape(f"{info['title']} {info['version']}")
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["Other"])[0]
            groups.setdefault(tag, []).append(_operation(method, path, operation))
    body = "".join(f"<h2>{escape(tag)}</h2>{''.join(rows)}" for tag, rows in groups.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1><p>{escape(info.get('description', ''))}</p>"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a></p>{body}</body></html>'
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    head = (
        f'<span class="method">{escape(method.upper())}</span><code>{escape(path)}</code> '
        f"{escape(operation.get('summary', ''))}"
    )
    if not schema.get("properties"):
        return f"<p>{head}</p>"
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(str(about.get('type', '')))}"
        f"{' (required)' if name in required else ''}</td>"
        f"<td>{escape(about.get('description', ''))}</td></tr>"
        for name, about in schema["properties"].items()
    )
    return (
        f"<details><summary>{head}</summary><table><tr><th>Field</th><th>Type</th>"
        f"<th>Meaning</th></tr>{rows}</table></details>"
    )
