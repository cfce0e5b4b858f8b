"""The WebSocket to AWS IoT Core: the handshake that AWS's client signs, at a server that checks it.

The server stands in for AWS: TLS, WebSocket and SigV4 are real (botocore computes what the
signature has to be), the credentials are made up.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from bench.mqtt_packets import CONNECT, SUBSCRIBE, Splitter
from cloud.config import Aws, Mqtt, Tls
from tests.certificates import Authority
from tests.mqtt_stub import filters_of
from tests.support_links import open_one
from tests.waiting import eventually

REGION, SERVICE = "eu-central-1", "iotdevicegateway"
KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@dataclass
class Gateway:
    """Lets in whoever signed with the secret, and says what it found."""

    secret: str = SECRET
    port: int = 0
    handshakes: list[dict[str, str]] = field(default_factory=list)
    subscriptions: list[str] = field(default_factory=list)

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        found = {key: values[0] for key, values in parse_qs(urlsplit(request.path).query).items()}
        self.handshakes.append(found)
        if found["X-Amz-Signature"] == self.signature(request, found):
            return None
        return connection.respond(HTTPStatus.FORBIDDEN, "the signature does not match\n")

    def signature(self, request: Request, found: dict[str, str]) -> str:
        """What it must be; a session's token is added after signing (AWS IoT alone does so)."""
        path, _, query = request.path.partition("?")
        signed = [
            part
            for part in query.split("&")
            if not part.startswith(("X-Amz-Signature=", "X-Amz-Security-Token="))
        ]
        asked = AWSRequest("GET", f"https://localhost{path}?{'&'.join(signed)}")
        asked.context["timestamp"] = found["X-Amz-Date"]
        auth = SigV4QueryAuth(Credentials(KEY_ID, self.secret), SERVICE, REGION)
        auth.headers_to_sign = lambda _: _named(request, found["X-Amz-SignedHeaders"])
        auth.payload = lambda _: hashlib.sha256(b"").hexdigest()
        return str(auth.signature(auth.string_to_sign(asked, auth.canonical_request(asked)), asked))

    def talk(self, connection: ServerConnection) -> None:
        """As much of a broker as makes a link ready."""
        splitter = Splitter()
        try:
            for data in connection:
                assert isinstance(data, bytes)
                for packet in splitter.feed(data):
                    if packet.kind == CONNECT:
                        connection.send(b"\x20\x03\x00\x00\x00")
                    elif packet.kind == SUBSCRIBE:
                        filters = filters_of(packet, five=True)
                        self.subscriptions += filters
                        body = packet.body[:2] + b"\0" + b"\1" * len(filters)
                        connection.send(bytes([0x90, len(body)]) + body)
        except ConnectionClosed:
            return


def _named(request: Request, names: str) -> HTTPHeaders:
    """AWS's client signs `connection`, too, which botocore by itself would leave out."""
    headers = HTTPHeaders()
    for name in names.split(";"):
        headers[name] = request.headers[name]
    return headers


@contextmanager
def gateway(authority: Authority, secret: str = SECRET) -> Iterator[Gateway]:
    own, found = authority.issue("gateway"), Gateway(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate_file, own.key_file)
    with serve(
        found.talk,
        "127.0.0.1",
        0,
        ssl=context,
        process_request=found.check,
        subprotocols=[Subprotocol("mqtt")],
        logger=logging.getLogger("gateway"),
    ) as server:
        found.port = server.socket.getsockname()[1]
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield found
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def config(port: int, authority: Authority) -> Mqtt:
    return Mqtt(
        host="localhost",
        port=port,
        tls=Tls(str(authority.ca_file)),
        transport="aws",
        aws=Aws(sigv4_region=REGION),
    )


def test_the_handshake_carries_the_signature_that_aws_expects(authority: Authority) -> None:
    with gateway(authority) as found:
        opened = open_one(config(found.port, authority))
        opened.link.start()
        opened.await_connections(1)
        opened.link.stop()
    (handshake,) = found.handshakes
    assert handshake["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert handshake["X-Amz-Credential"].startswith(f"{KEY_ID}/")
    assert handshake["X-Amz-Credential"].endswith(f"/{REGION}/{SERVICE}/aws4_request")
    assert "host" in handshake["X-Amz-SignedHeaders"].split(";")
    assert "X-Amz-Security-Token" not in handshake
    assert "twin/v1/+/breach" in found.subscriptions


def test_the_token_of_a_role_goes_with_it_unsigned(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a/token+of=a role")
    with gateway(authority) as found:
        opened = open_one(config(found.port, authority))
        opened.link.start()
        opened.await_connections(1)
        opened.link.stop()
    assert found.handshakes[0]["X-Amz-Security-Token"] == "a/token+of=a role"


def test_a_wrong_secret_is_refused_and_said(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    with gateway(authority, secret="another") as found:
        opened = open_one(config(found.port, authority))
        opened.link.start()
        eventually(lambda: "broker_unreachable" in caplog.text, what="the complaint")
        assert not opened.link.is_connected
        opened.link.stop()
    assert found.subscriptions == []
