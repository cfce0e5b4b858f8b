"""A small OIDC issuer: discovery and keys over real HTTP, tokens signed by real RSA and EC keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

AUDIENCE = "twin-cloud"
# Once for all tests: an RSA key takes a while to make.
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Issuer(ThreadingHTTPServer):
    """Its keys by id; `asked` counts what was fetched."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.calls_itself = self.url
        self.keys: dict[str, Any] = {"rsa": RSA_KEY}
        self.asked: dict[str, int] = {}
        self.is_down = False
        self.add_key("ec")

    def add_key(self, kid: str) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def document(self, path: str) -> dict[str, Any] | None:
        self.asked[path] = self.asked.get(path, 0) + 1
        if self.is_down:
            return None
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.calls_itself, "jwks_uri": f"{self.url}/keys"}
        assert path == "/keys"
        return {"keys": [_public(kid, key) for kid, key in self.keys.items()]}

    def token(self, kid: str = "ec", **claims: Any) -> str:
        """A good one for a viewer, but for these claims (None: without)."""
        key = self.keys[kid]
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(self.claims(**claims), key, algorithm, headers={"kid": kid})

    def claims(self, **claims: Any) -> dict[str, Any]:
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "user-1",
            "exp": int(time.time()) + 300,
            "iat": int(time.time()),
            "realm_access": {"roles": ["fleet-viewer", "something-else"]},
        }
        return {name: value for name, value in (usual | claims).items() if value is not None}


def _public(kid: str, key: Any) -> dict[str, Any]:
    kind = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        told = self.server.document(self.path)
        content = b"" if told is None else json.dumps(told).encode()
        self.send_response(503 if told is None else 200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def issuing() -> Iterator[Issuer]:
    issuer = Issuer()
    thread = threading.Thread(target=issuer.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.shutdown()
        thread.join()
        issuer.server_close()
