"""Nothing that is small waits for 40 ms: neither the API's answers nor the broker's messages.

Where Nagle's algorithm meets a delayed acknowledgement, every second packet does.
"""

from __future__ import annotations

import socket
from pathlib import Path

from cloud.roles.service import listen
from demo.broker_backends import _PRIVATE

ROOT = Path(__file__).resolve().parent.parent


def test_connections_to_the_api_send_at_once() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_the_broker_sends_at_once() -> None:
    deployed = (ROOT / "deploy/mosquitto/mosquitto.conf").read_text()
    assert "\nset_tcp_nodelay true\n" in deployed
    assert _PRIVATE["set_tcp_nodelay"] == "true"
