"""What every answer and every request is held to: headers, the size of a body, the time it takes.

Must never cut an answer that has begun: a stream lasts as long as it lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.api import problems
from cloud.security.settings import Limits

# Not more than is said of an answer already: a page may need another policy.
_HEADERS: Final = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Hardening:
    """ASGI middleware, the outermost one."""

    def __init__(self, app: ASGIApp, limits: Callable[[], Limits]) -> None:
        self._app, self._limits = app, limits
        self._late: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, held to the limits."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits, answer = self._limits(), _Answer(scope, send)
        told = Headers(scope=scope).get("content-length", "0")
        if told.isdigit() and int(told) > limits.body_bytes:
            await answer.problem(413, receive)
            return
        bounded = _bounded(receive, limits.body_bytes)
        task = asyncio.create_task(_run(self._app, scope, bounded, answer))
        started = asyncio.create_task(answer.started.wait())
        try:
            await asyncio.wait(
                {task, started}, timeout=limits.answer_s, return_when=asyncio.FIRST_COMPLETED
            )
            if answer.started.is_set() or task.done():
                await task
                return
        finally:
            started.cancel()
            if not task.done():
                task.cancel()
        # A thread that does not come back cannot be ended; nobody waits for it any more.
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        await answer.problem(503, receive, f"No answer within {limits.answer_s:g} s: ask for less.")


class _Answer:
    """What is sent, with the headers; after an answer of our own nothing else is."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._is_over = False
        self.started = asyncio.Event()

    async def send(self, message: Message) -> None:
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self.started.set()
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def problem(self, status: int, receive: Receive, detail: str = "") -> None:
        if self.started.is_set():
            return
        told = problems.response(Request(self._scope), status, detail or problems.MEANINGS[status])
        if status == 413:  # noqa: PLR2004 - the rest of the body is not read
            told.headers["Connection"] = "close"
        await told(self._scope, receive, self.send)
        self._is_over = True


async def _run(app: ASGIApp, scope: Scope, receive: Receive, answer: _Answer) -> None:
    await app(scope, receive, answer.send)


def _bounded(receive: Receive, most: int) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise HTTPException(413, problems.MEANINGS[413])
        return message

    return bounded
