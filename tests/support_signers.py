"""The three places of a signing key for tests: a file, SoftHSM 2, and a stand-in for AWS KMS."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.security.signing_settings import Keys, Kms, Pkcs11

PIN = "a-pin-of-the-token"
LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
KMS_LARGEST = 4096


def softhsm_library() -> str:
    """The library; without it the test is skipped, where CI requires it fails."""
    for path in LIBRARIES:
        if Path(path).exists() and shutil.which("softhsm2-util"):
            return path
    if os.environ.get("TWIN_REQUIRE_SOFTHSM"):
        pytest.fail("SoftHSM 2 is required here and is not installed")
    pytest.skip("needs SoftHSM 2 (Debian: softhsm2)")


def token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """A new token with an Ed25519 key. The library reads its configuration once a process."""
    import pkcs11
    from pkcs11.util.ec import encode_named_curve_parameters

    library = softhsm_library()
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    command = ["softhsm2-util", "--init-token", "--free", "--label", "twin"]
    command += ["--pin", PIN, "--so-pin", "of-the-officer"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    found = pkcs11.lib(library)
    found.reinitialize()
    attributes = {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters("1.3.101.112")}
    with found.get_token(token_label="twin").open(rw=True, user_pin=PIN) as session:
        curve = session.create_domain_parameters(pkcs11.KeyType.EC_EDWARDS, attributes, local=True)
        mechanism = pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN
        curve.generate_keypair(mechanism=mechanism, store=True, label="revisions")
    pin_file = folder / "pin"
    pin_file.touch(mode=0o600)
    pin_file.write_text(PIN + "\n")
    return Keys(pkcs11=Pkcs11(library, "twin", "revisions", str(pin_file)))


class KmsStandIn(ThreadingHTTPServer):
    """GetPublicKey and Sign of KMS's JSON protocol for one Ed25519 key, with its limits."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _KmsHandler)
        self.key = Ed25519PrivateKey.generate()
        self.is_down = False
        self.lies = False

    def answer(self, action: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.is_down:
            return 400, {"__type": "KMSInternalException", "message": "down"}
        if asked["KeyId"] != "alias/twin":
            return 400, {"__type": "NotFoundException", "message": f"no {asked['KeyId']}"}
        if action == "TrentService.GetPublicKey":
            der = self.key.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            )
            return 200, {
                "KeyId": "alias/twin",
                "KeySpec": "ECC_NIST_EDWARDS25519",
                "PublicKey": base64.b64encode(der).decode(),
                "SigningAlgorithms": ["ED25519_SHA_512", "ED25519_PH_SHA_512"],
            }
        assert action == "TrentService.Sign"
        content = base64.b64decode(asked["Message"])
        if len(content) > KMS_LARGEST or asked["MessageType"] != "RAW":
            return 400, {"__type": "ValidationException", "message": "too long, or a digest"}
        assert asked["SigningAlgorithm"] == "ED25519_SHA_512"
        signature = self.key.sign(content + b"!" * self.lies)
        return 200, {"KeyId": "alias/twin", "Signature": base64.b64encode(signature).decode()}


class _KmsHandler(BaseHTTPRequestHandler):
    server: KmsStandIn

    def do_POST(self) -> None:
        assert self.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=")
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        status, told = self.server.answer(self.headers["x-amz-target"], body)
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Keys, KmsStandIn]]:
    """A stand-in for KMS that boto3 finds by its endpoint variable."""
    server = KmsStandIn()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", f"http://127.0.0.1:{server.server_address[1]}")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_MAX_ATTEMPTS", "1"),
    ):
        monkeypatch.setenv(name, value)
    try:
        yield Keys(kms=Kms("alias/twin", "eu-central-1")), server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
