"""Each request has a trace id: on its answer, in its problem, and in its line of the log.

It is the caller's where it sends one, as W3C Trace Context or as a proxy's X-Request-Id, so that
one search finds the request in both logs. Must never log a query or a header: they may hold what
only the caller knows.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from http import HTTPStatus
from typing import Final

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.security.api_keys import without_secrets

log = logging.getLogger(__name__)

HEADER: Final = "X-Request-Id"
UNWATCHED: Final = frozenset({"/health/live", "/health/ready", "/healthz", "/readyz", "/metrics"})
"""What a supervisor asks every few seconds; it has a line when it fails."""
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?\Z")
_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_NONE: Final = "0" * 32


class Requests:
    """ASGI middleware, outside of everything that may answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its trace id; what ends without an answer is a 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        trace_id = trace_id_of(Headers(scope=scope))
        scope.setdefault("state", {})["trace_id"] = trace_id
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = trace_id
            await send(message)

        try:
            await self._app(scope, receive, named)
        finally:
            _log(scope, status, time.perf_counter() - began, trace_id)


def trace_id_of(headers: Headers) -> str:
    """The caller's, or a new one: 32 hexadecimal digits, not all 0."""
    parent = _TRACEPARENT.match(headers.get("traceparent", ""))
    given = parent[1] if parent else headers.get(HEADER, "").lower().replace("-", "")
    return given if _ID.match(given) and given != _NONE else secrets.token_hex(16)


def known_trace_id(request: Request) -> str | None:
    """The trace id that this request was given."""
    found: str | None = getattr(request.state, "trace_id", None)
    return found


def _log(scope: Scope, status: int, seconds: float, trace_id: str) -> None:
    if scope["path"] in UNWATCHED and status < HTTPStatus.BAD_REQUEST:
        return
    actor = scope["state"].get("actor")
    log.info(
        "api_answered method=%s path=%s status=%s seconds=%s actor=%s trace_id=%s",
        scope["method"],
        without_secrets(scope["path"]),
        int(status),
        round(seconds, 4),
        actor.name if actor else None,
        trace_id,
    )
