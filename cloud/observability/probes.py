"""A port of its own for a process without an API: does it live, is it ready, what does it count.

The same paths and answers as the API's. Must never name a vehicle, nor check anything in order to
say that the process lives.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client.exposition import choose_encoder

from cloud.errors import PortOccupiedError
from cloud.observability.metrics import Metrics

Checks = Mapping[str, Callable[[], str | None]]
LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"


class Probes:
    """Listens from the beginning, so that a port that is taken is said at once."""

    def __init__(self, host: str, port: int, checks: Checks, metrics: Metrics) -> None:
        """Raises PortOccupiedError."""

        class Handler(_Handler):
            pages = _Pages(checks, metrics)

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise PortOccupiedError(host, port, error.strerror or str(error)) from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Where it listens."""
        return "http://{}:{}".format(*self._server.server_address[:2])

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


class _Pages:
    def __init__(self, checks: Checks, metrics: Metrics) -> None:
        self._checks, self._metrics = checks, metrics

    def answer(self, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        if path == LIVE:
            return _json(HTTPStatus.OK, {"status": "ok"})
        if path == READY:
            return self._ready()
        if path == METRICS:
            encode, content_type = choose_encoder(accept)
            return HTTPStatus.OK, content_type, encode(self._metrics.registry)
        return _json(HTTPStatus.NOT_FOUND, {"detail": f"there are {LIVE}, {READY}, {METRICS}"})

    def _ready(self) -> tuple[HTTPStatus, str, bytes]:
        found = {name: check() for name, check in self._checks.items()}
        failed = {name: problem for name, problem in found.items() if problem is not None}
        if not failed:
            return _json(HTTPStatus.OK, {"checks": dict.fromkeys(found, "ok")})
        status = HTTPStatus.SERVICE_UNAVAILABLE
        problem = {
            "type": f"/api/v1/problems/{status}",
            "title": status.phrase,
            "status": status,
            "detail": "; ".join(f"{name}: {problem}" for name, problem in failed.items()),
            "instance": READY,
            "violations": [{"where": name, "problem": told} for name, told in failed.items()],
        }
        return status, "application/problem+json", json.dumps(problem).encode()


class _Handler(BaseHTTPRequestHandler):
    pages: _Pages
    timeout = 5  # seconds that somebody may take to ask

    def do_GET(self) -> None:
        """Answer one of the three pages."""
        accept = self.headers.get("Accept", "")
        status, content_type, body = self.pages.answer(self.path.partition("?")[0], accept)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Probes come every few seconds: nothing is logged."""


def _json(status: HTTPStatus, body: object) -> tuple[HTTPStatus, str, bytes]:
    return status, "application/json", json.dumps(body).encode()
