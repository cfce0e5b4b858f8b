"""The live view over HTTP, for this machine alone: a page for a head unit, and the same as JSON.

Read-only and bounded: two addresses, GET only, eight connections at once, eight KiB and five
seconds a request. A page of another site reads nothing here: no CORS, and a request whose Host is
not this machine is refused (DNS rebinding). Must never touch the agent: it serves what it is given.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final

from edge_agent.live.page import PAGE

log = logging.getLogger(__name__)

ADDRESS: Final = "127.0.0.1"
CONNECTIONS: Final = 8
REQUEST_BYTES: Final = 8192
REQUEST_S: Final = 5.0


class LiveServer(ThreadingMixIn, TCPServer):
    """Serves in threads of its own between `start` and `stop`; `look` gives the JSON."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, look: Callable[[], bytes]) -> None:
        """Raises OSError when the port is taken."""
        super().__init__((ADDRESS, port), _Handler)
        self.look = look
        self.port: int = self.server_address[1]
        self.hosts = {f"{name}:{self.port}" for name in (ADDRESS, "localhost")}
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._thread = threading.Thread(target=self.serve_forever, name="live", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """One connection too many is closed without an answer."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no trouble of ours; what else it may be, the log says."""
        del request
        log.info("live_request_failed client=%s why=%r", client_address, sys.exception())


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    timeout = REQUEST_S
    server_version, sys_version = "edge-agent", ""

    def handle(self) -> None:
        head = _head_of(self.connection, time.monotonic() + REQUEST_S)
        if head is None:
            return
        self.rfile.close()
        self.rfile = BytesIO(head)
        self.handle_one_request()

    def do_GET(self) -> None:
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        elif self.path == "/":
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.encode())
        elif self.path == "/live.json":
            self._answer(HTTPStatus.OK, "application/json", self.server.look())
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        del message, explain
        phrase = HTTPStatus(code).phrase
        self._answer(HTTPStatus(code), "text/plain; charset=utf-8", f"{phrase}\n".encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        log.debug(format, *args)

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _head_of(connection: socket.socket, deadline_s: float) -> bytes | None:
    """The request's head; None when it is too long, or too slow, or never ends."""
    head = b""
    while b"\r\n\r\n" not in head:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or len(head) > REQUEST_BYTES:
            return None
        connection.settimeout(left_s)
        try:
            more = connection.recv(REQUEST_BYTES)
        except OSError:
            return None
        if not more:
            return None
        head += more
    connection.settimeout(REQUEST_S)
    return head


def _hash_of(tag: str) -> str:
    """The source expression of the page's own inline element, for its policy."""
    found = re.search(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    assert found is not None  # noqa: S101 - the page is our own
    digest = hashlib.sha256(found.group(1).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
