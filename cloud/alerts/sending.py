"""One signed POST to a webhook's address, and to no other: no redirects, no private networks.

Signed as Standard Webhooks says (standardwebhooks.com, version 1): HMAC-SHA256 over id, timestamp
and body. The name is resolved once, and the address that was checked is the one that is connected
to, so that a name that changes in between leads nowhere. Must never follow what an answer says.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpcore

from cloud.errors import WebhookError

TIMEOUT_S: Final = 10.0
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # it begins every secret, and is none
SECRET_BYTES: Final = 32
SUCCESS: Final = range(200, 300)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def new_secret() -> str:
    """As Standard Webhooks writes one."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def check_url(url: str, allowed: Sequence[Network]) -> None:
    """Raises WebhookError where nothing may be sent to; a name is resolved when it is used."""
    parts = urlsplit(url)
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise WebhookError(url, "it is no http(s) address")
    if parts.username or parts.password or parts.fragment:
        raise WebhookError(url, "it holds more than host, port, path and query")
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        address = None
    if address is not None:
        _check_address(url, address, allowed)
    if parts.scheme == "http" and not allowed:
        raise WebhookError(url, "without TLS only networks in [webhooks] allow are sent to")


def post(
    url: str, secret: str, message_id: str, body: bytes, now: float, allowed: Sequence[Network]
) -> int:
    """The status of the answer. Raises WebhookError: it cannot be sent, or not there."""
    check_url(url, allowed)
    timestamp = int(now)
    headers: dict[bytes | str, bytes | str] = {
        "content-type": "application/json",
        "user-agent": "twin-cloud",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message_id, timestamp, body),
    }
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
    backend = _Guarded(url, allowed)
    try:
        with (
            httpcore.ConnectionPool(network_backend=backend) as pool,
            pool.stream(
                "POST", url, headers=headers, content=body, extensions={"timeout": timeouts}
            ) as response,
        ):
            return response.status  # what it says besides is not read
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise WebhookError(url, f"it does not answer ({type(error).__name__})") from error
    except (OSError, ValueError) as error:
        raise WebhookError(url, f"it cannot be reached ({error})") from error


class _Guarded(httpcore.SyncBackend):
    """Connects only to addresses that were checked."""

    def __init__(self, url: str, allowed: Sequence[Network]) -> None:
        super().__init__()
        self._url, self._allowed = url, allowed

    def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> Any:
        """As its base; raises WebhookError where the name leads to what may not be reached."""
        found = {info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        for one in found:
            _check_address(self._url, ipaddress.ip_address(one), self._allowed)
        return super().connect_tcp(str(min(found)), port, *args, **options)


def _check_address(
    url: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address, allowed: Iterable[Network]
) -> None:
    if any(address in network for network in allowed):
        return
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_global or (mapped or address).is_multicast:
        raise WebhookError(url, f"{address} is no public address; [webhooks] allow may name it")
