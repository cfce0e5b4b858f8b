"""The vehicle's side of mutual TLS: a context of the files as they are now.

Must never connect without the server's name being checked, nor below TLS 1.2.
"""

from __future__ import annotations

import logging
import ssl
from typing import Any

from edge_agent.config import Mqtt, Tls
from edge_agent.errors import LinkError

log = logging.getLogger(__name__)

AWS_ALPN, AWS_PORT = "x-amzn-mqtt-ca", 443
"""AWS IoT Core tells MQTT with client certificates from HTTPS by this name on this port."""


class ContextSource:
    """A context for each attempt to connect: renewed files count from the next one on."""

    def __init__(self, mqtt: Mqtt) -> None:
        """Raises LinkError when the files cannot be used."""
        self._mqtt = mqtt
        self._context = None if mqtt.tls is None else _context(mqtt.tls, alpn_of(mqtt))

    def current(self) -> ssl.SSLContext | None:
        """None without TLS. Files that have become unusable are said, and the last good ones used.

        So a renewal that went wrong does not cut the vehicle off.
        """
        if self._mqtt.tls is not None:
            try:
                self._context = _context(self._mqtt.tls, alpn_of(self._mqtt))
            except LinkError as error:
                told = "tls_files_unusable error=%r: going on with those from before"
                log.error(told, str(error))  # noqa: TRY400 - it names the cause
        return self._context


def alpn_of(mqtt: Mqtt) -> str:
    """The protocol name to offer; empty for none. Without a word in the configuration: AWS's."""
    if mqtt.tls is None:
        return ""
    if mqtt.tls.alpn is not None:
        return mqtt.tls.alpn
    return AWS_ALPN if mqtt.port == AWS_PORT else ""


class ClosingSocket(ssl.SSLSocket):
    """paho leaves the socket of a failed handshake to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - ssl's signature
        """Close what did not come about."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def _context(tls: Tls, alpn: str) -> ssl.SSLContext:
    files = (tls.ca_file, tls.cert_file, tls.key_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # asks for a certificate, checks its name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = ClosingSocket
    if alpn:
        context.set_alpn_protocols([alpn])
    try:
        context.load_verify_locations(tls.ca_file)
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise LinkError(files, error) from error
    return context


def _no_password(*_: Any) -> str:
    """An encrypted key is an error: without this the agent would ask on the terminal."""
    return ""
