"""Count every answer by its route's template, and time it until it begins.

A stream may go on for hours; that is no latency. Must never use what a client chose, such as a
path, as a label.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.observability.metrics import METHODS, Metrics

UNMATCHED: Final = "unmatched"


class Measured:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; what ends without an answer counts as 500."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answered = False

        async def watched(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                _note(scope, message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            if not answered:
                status = HTTPStatus.INTERNAL_SERVER_ERROR.value
                _note(scope, status, time.perf_counter() - began)


def _note(scope: Scope, status: int, seconds: float) -> None:
    metrics: Metrics = scope["app"].state.context.metrics
    method = scope["method"] if scope["method"] in METHODS else "other"
    route = getattr(scope.get("route"), "path", UNMATCHED)
    metrics.requests.add(method, route, str(status))
    metrics.request_seconds.labels(method, route).observe(seconds)
