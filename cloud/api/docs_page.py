"""The API's description as one page of plain HTML, made of it on the server.

Must never load anything from elsewhere, nor run a script: a service without the internet has docs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

_STYLE: Final = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}summary{cursor:pointer;padding:.3rem 0}
table{border-collapse:collapse}td,th{border-bottom:1px solid #8888;padding:.2rem .8rem .2rem 0;
text-align:left;vertical-align:top}b{display:inline-block;width:4rem}"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'"


@router.get("/api/v1/docs", include_in_schema=False)
def docs(request: Request) -> HTMLResponse:
    """Every operation with its parameters and answers."""
    page = "".join(_page(request.app.openapi()))
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def _page(described: dict[str, Any]) -> Iterator[str]:
    info = described["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{_STYLE}</style><h1>{title}</h1>"
    for paragraph in info["description"].split("\n\n"):
        yield f"<p>{escape(paragraph)}</p>"
    yield '<p>For programs: <a href="/api/v1/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>'
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield from _operation(path, method, operation)


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    first = escape(operation.get("description", "").splitlines()[0])
    yield f'<details id="{escape(operation["operationId"])}">'
    yield f"<summary><b>{method.upper()}</b><code>{escape(path)}</code> {first}</summary>"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "<table><tr><th>parameter<th>in<th>type<th>"
        for one in parameters:
            cells = (one["name"], one["in"], _type(one["schema"]), one.get("description", ""))
            yield "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)
        yield "</table>"
    body = operation.get("requestBody")
    if body:
        yield f"<p>Body: <code>{escape(_content(body))}</code></p>"
    yield "<table><tr><th>status<th>answer<th>"
    for status, answer in operation["responses"].items():
        yield f"<tr><td>{status}<td><code>{escape(_content(answer))}</code>"
        yield f"<td>{escape(answer['description'])}"
    yield "</table></details>"


def _content(message: dict[str, Any]) -> str:
    return ", ".join(
        f"{media} {_type(one.get('schema', {}))}"
        for media, one in message.get("content", {}).items()
    )


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rsplit("/", 1)[1])
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    return str(schema.get("format", schema.get("type", "any")))
