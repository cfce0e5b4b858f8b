"""HEAD as GET without its body, an ETag on every JSON answer, and 304 for who has it already.

RFC 9110, 13.1.2. Must never hold back a stream: what comes in more than one piece passes.
"""

from __future__ import annotations

import hashlib
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READ: Final = {"GET", "HEAD"}
_OK: Final = 200
_ABOUT_A_BODY: Final = ("content-length", "content-type")


class Conditional:
    """ASGI middleware, the innermost one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; the server itself drops the body of an answer to HEAD."""
        if scope["type"] != "http" or scope["method"] not in _READ:
            await self._app(scope, receive, send)
            return
        known = Headers(scope=scope).get("if-none-match")
        asked = scope["method"]
        scope["method"] = "GET"  # in place: what stands around this looks up the route in it

        async def answered(message: Message) -> None:
            scope["method"] = asked
            await send(message)

        await self._app(scope, receive, _Tagged(known, answered))


class _Tagged:
    """Holds the start of an answer until it is known whether one piece is all of it."""

    def __init__(self, known: str | None, send: Send) -> None:
        self._known, self._send = known, send
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _may_be_tagged(message):
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if not message.get("more_body", False):
                message = _tag(start, message, self._known)
            await self._send(start)
        await self._send(message)


def _may_be_tagged(start: Message) -> bool:
    kind = Headers(raw=start["headers"]).get("content-type", "")
    return start["status"] == _OK and kind.startswith("application/json")


def _tag(start: Message, body: Message, known: str | None) -> Message:
    """The body that is sent: none where the client has it."""
    headers = MutableHeaders(scope=start)
    etag = headers.get("etag") or f'"{hashlib.sha256(body["body"]).hexdigest()[:32]}"'
    headers["ETag"] = etag
    if not _has(known, etag):
        return body
    start["status"] = 304
    for name in _ABOUT_A_BODY:
        del headers[name]
    return {**body, "body": b""}


def _has(known: str | None, etag: str) -> bool:
    """Compared weakly, as RFC 9110 says for If-None-Match."""
    if known is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags
