"""The gate before every route: how often somebody may come, and who it is.

It stands before routing and before a body is read, so that whoever is not let in learns nothing,
not even which addresses there are. Must never let anybody through but to the open pages.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloud.api import problems
from cloud.errors import NotAuthenticatedError
from cloud.security.actors import Actor
from cloud.security.buckets import Buckets, Rate
from cloud.security.settings import Limits
from common.errors import TransientError

log = logging.getLogger(__name__)

# What tells nothing of the fleet: that the service lives, and what its interface is.
OPEN: Final = frozenset(
    {
        "/healthz",
        "/readyz",
        "/health/live",
        "/health/ready",
        "/api/v1/openapi.json",
        "/api/v1/docs",
    }
)
METRICS: Final = "/metrics"


class Lets(Protocol):
    """Who comes in by what is shown: `cloud.security.doors.Doors`."""

    def known(self, token: str) -> Actor | None:
        """Without blocking."""
        ...

    def open(self, token: str) -> Actor:
        """Raises NotAuthenticatedError, TransientError."""
        ...


class Closed:
    """Lets nobody in: what an app does that was told nothing else."""

    def known(self, token: str) -> Actor | None:  # noqa: ARG002
        """Nobody."""
        return None

    def open(self, token: str) -> Actor:  # noqa: ARG002
        """Nobody."""
        raise NotAuthenticatedError("nobody is let in")


@dataclass(frozen=True)
class Entrance:
    """How the API is entered. `lets` None: everybody is an admin, from this machine alone."""

    lets: Lets | None
    limits: Limits = field(default_factory=Limits)
    open_paths: frozenset[str] = OPEN
    cors_origins: tuple[str, ...] = ()
    monotonic: Callable[[], float] = time.monotonic


CLOSED: Final = Entrance(Closed())


class Gate:
    """ASGI middleware. `entrance` is asked for with each request's app."""

    def __init__(self, app: ASGIApp, entrance: Callable[[], Entrance]) -> None:
        self._app, self._entrance_of = app, entrance
        self._made: _Gate | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let through, or answer with a problem."""
        if scope["type"] != "http":
            return  # no websockets here: nobody behind could check them
        if self._made is None:
            self._made = _Gate(self._entrance_of())
        headers: dict[str, str] = {}
        try:
            await self._made.admit(Request(scope), headers)
        except _RefusalError as error:
            refused = problems.response(Request(scope), error.status, error.detail)
            refused.headers.update(headers | error.headers)
            await refused(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, tell)


class _Gate:
    def __init__(self, entrance: Entrance) -> None:
        self._entrance, limits = entrance, entrance.limits
        self._keys = Buckets(Rate(limits.key_per_s, limits.key_burst))
        self._addresses = Buckets(Rate(limits.address_per_s, limits.address_burst))
        per_minute = limits.failures_per_minute
        self._failures = Buckets(Rate(per_minute / 60.0, per_minute))

    async def admit(self, request: Request, headers: dict[str, str]) -> None:
        """Let it pass with its actor, or raise _RefusalError; `headers` are of either answer."""
        address = address_of(request.scope)
        _take(self._addresses, "address", address, self._now(), headers)
        if self._is_open(request.scope):
            return
        actor = await self._identified(request, address)
        _take(self._keys, "key", actor.name, self._now(), headers)
        request.state.actor = actor

    async def _identified(self, request: Request, address: str) -> Actor:
        """Raises _RefusalError."""
        try:
            return await self._identify(request, address)
        except NotAuthenticatedError as error:
            if "authorization" in request.headers:
                self._failures.take(address, self._now())
                log.warning("api_refused address=%s why=%r", address, error.problem)
            raise _RefusalError(401) from error
        except TransientError as error:
            log.error("api_cannot_tell_who_asks why=%r", str(error))  # noqa: TRY400 - names the cause
            raise _RefusalError(503, "It cannot be told who asks: try again.") from error

    async def _identify(self, request: Request, address: str) -> Actor:
        """Raises NotAuthenticatedError, TransientError, _RefusalError."""
        lets = self._entrance.lets
        if lets is None:
            return _anybody(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise NotAuthenticatedError("nothing was shown")
        known = lets.known(token)
        if known is not None:
            return known
        wait_s = self._failures.wait_s(address, self._now())
        if wait_s:
            raise _too_many(wait_s)
        return await run_in_threadpool(lets.open, token)

    def _is_open(self, scope: Scope) -> bool:
        path = scope["path"]
        is_page = path in self._entrance.open_paths or path.startswith(problems.PATH + "/")
        return is_page and scope["method"] in {"GET", "HEAD"}

    def _now(self) -> float:
        return self._entrance.monotonic()


class _RefusalError(Exception):
    """What the caller is told instead of what it asked for."""

    def __init__(self, status: int, detail: str = "", **headers: str) -> None:
        self.status, self.detail = status, detail or problems.MEANINGS[status]
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(detail)


def address_of(scope: Scope) -> str:
    """Who calls, as far as the network tells; of IPv6 the network, as its hosts are free."""
    host = (scope.get("client") or ("unknown", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if address.version == 4:  # noqa: PLR2004
        return host
    return str(ipaddress.ip_network(f"{host.partition('%')[0]}/64", strict=False))


def _anybody(request: Request) -> Actor:
    """From this machine, whose name was asked for: no page of elsewhere that a browser rebinds."""
    host: Any = request.url.hostname
    if host not in {"localhost", "127.0.0.1", "::1"}:
        raise NotAuthenticatedError(f'auth = "none" answers to a loopback name, not to {host}')
    return Actor("anonymous", "admin")


def _take(buckets: Buckets, kind: str, name: str, now: float, headers: dict[str, str]) -> None:
    """Raises _RefusalError; the headers are those of draft-ietf-httpapi-ratelimit-headers-10."""
    taken, rate = buckets.take(name, now), buckets.rate
    window_s = max(1, math.ceil(rate.burst / rate.per_s))
    next_s = max(1, math.ceil(taken.wait_s or 1 / rate.per_s))
    headers["RateLimit-Policy"] = f'"{kind}";q={rate.burst};w={window_s}'
    headers["RateLimit"] = f'"{kind}";r={taken.left};t={next_s}'
    if taken.wait_s:
        raise _too_many(taken.wait_s)


def _too_many(wait_s: float) -> _RefusalError:
    return _RefusalError(429, Retry_After=str(max(1, math.ceil(wait_s))))
