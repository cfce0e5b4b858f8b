"""Where the signing key is: in a file, in a PKCS#11 token, in AWS KMS; all of them a `Signer`.

A key in a token or in KMS never leaves it. What such a one returns is verified before anything
believes it: a chain is for ever. Must never log a PIN, nor hold one longer than to log in.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.errors import SecretError, SignerUnavailableError, UnsignableError
from cloud.security.secret_files import read_secret, warn_of_readable
from cloud.security.signing_settings import Keys, Kms, Pkcs11
from common.signing import Signer, load_private_key

PIN_VARIABLE: Final = "TWIN_PKCS11_PIN"
KMS_LARGEST: Final = 4096  # bytes; Ed25519 signs a message, not its digest
_RAW_BYTES: Final = 32


def load_signer(keys: Keys, base: Path) -> Signer:
    """What `[keys]` names, its paths below `base`.

    Raises KeyFileError, SecretError, SignerUnavailableError.
    """
    if keys.pkcs11 is not None:
        pin_file = None if keys.pkcs11.pin_file is None else base / keys.pkcs11.pin_file
        return TokenSigner(keys.pkcs11, read_secret(pin_file, PIN_VARIABLE, os.environ))
    if keys.kms is not None:
        return KmsSigner(keys.kms)
    if keys.private is None:
        raise SecretError("[keys] names no key")
    warn_of_readable([base / keys.private])
    return load_private_key(base / keys.private)


class TokenSigner:
    """An Ed25519 key of a PKCS#11 token (CKM_EDDSA). Thread-safe: one signature at a time."""

    def __init__(self, settings: Pkcs11, pin: str) -> None:
        """Raises SignerUnavailableError."""
        self._settings, self._pin = settings, pin
        self._lock = threading.Lock()
        self._session, self._private, self._public = self._open()

    def public_key(self) -> Ed25519PublicKey:
        """Whose signatures it makes."""
        return self._public

    def sign(self, content: bytes, /) -> bytes:
        """64 bytes. Raises SignerUnavailableError."""
        from pkcs11 import Mechanism  # noqa: PLC0415
        from pkcs11.exceptions import PKCS11Error  # noqa: PLC0415

        with self._lock:
            try:
                signature: bytes = self._private.sign(content, mechanism=Mechanism.EDDSA)
            except PKCS11Error:  # the session may have ended: once more from the start
                self._reopen()
                signature = self._telling(
                    lambda: self._private.sign(content, mechanism=Mechanism.EDDSA)
                )
        return _verified(self._public, content, signature, self._where())

    def _reopen(self) -> None:
        """Raises SignerUnavailableError, also where the token holds another key now."""
        from pkcs11.exceptions import PKCS11Error  # noqa: PLC0415

        with suppress(PKCS11Error):
            self._session.close()
        self._session, self._private, public = self._open()
        if public != self._public:
            raise SignerUnavailableError(self._where(), "its key has changed: restart the service")

    def _open(self) -> tuple[Any, Any, Ed25519PublicKey]:
        import pkcs11  # noqa: PLC0415

        def log_in() -> Any:
            token = pkcs11.lib(self._settings.module).get_token(token_label=self._settings.token)
            return token.open(user_pin=self._pin)

        def find(session: Any) -> tuple[Any, bytes]:
            pair = [
                session.get_key(object_class=kind, label=self._settings.key)
                for kind in (pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.ObjectClass.PUBLIC_KEY)
            ]
            point = bytes(pair[1][pkcs11.Attribute.EC_POINT])
            if len(point) not in {_RAW_BYTES, _RAW_BYTES + 2}:  # bare, or in a DER OCTET STRING
                raise SignerUnavailableError(self._where(), "its key is no Ed25519 key")
            return pair[0], point

        session = self._telling(log_in)
        try:
            private, point = self._telling(lambda: find(session))
        except SignerUnavailableError:
            session.close()
            raise
        return session, private, Ed25519PublicKey.from_public_bytes(point[-_RAW_BYTES:])

    def _telling(self, do: Callable[[], Any]) -> Any:
        from pkcs11.exceptions import PKCS11Error  # noqa: PLC0415

        try:
            return do()
        except (PKCS11Error, RuntimeError) as error:
            raise SignerUnavailableError(self._where(), error) from error

    def _where(self) -> str:
        return f"PKCS#11 token {self._settings.token}, key {self._settings.key}"


class KmsSigner:
    """An Ed25519 key of AWS KMS (ECC_NIST_EDWARDS25519), with the credentials of boto3's chain."""

    def __init__(self, settings: Kms) -> None:
        """Raises SignerUnavailableError."""
        import boto3  # noqa: PLC0415

        self._key = settings.key
        self._client: Any = boto3.client("kms", region_name=settings.region)
        der = self._call(lambda: self._client.get_public_key(KeyId=self._key))["PublicKey"]
        public = serialization.load_der_public_key(der)
        if not isinstance(public, Ed25519PublicKey):
            raise SignerUnavailableError(self._where(), "its key is no Ed25519 key")
        self._public = public

    def public_key(self) -> Ed25519PublicKey:
        """Whose signatures it makes."""
        return self._public

    def sign(self, content: bytes, /) -> bytes:
        """64 bytes. Raises SignerUnavailableError, UnsignableError."""
        if len(content) > KMS_LARGEST:
            raise UnsignableError(self._where(), len(content), KMS_LARGEST)
        answer = self._call(
            lambda: self._client.sign(
                KeyId=self._key,
                Message=content,
                MessageType="RAW",
                SigningAlgorithm="ED25519_SHA_512",
            )
        )
        return _verified(self._public, content, answer["Signature"], self._where())

    def _call(self, call: Callable[[], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        try:
            return call()
        except (BotoCoreError, ClientError) as error:
            raise SignerUnavailableError(self._where(), error) from error

    def _where(self) -> str:
        return f"KMS key {self._key}"


def _verified(public: Ed25519PublicKey, content: bytes, signature: bytes, where: str) -> bytes:
    try:
        public.verify(signature, content)
    except InvalidSignature as error:
        raise SignerUnavailableError(where, "it returned what is no signature") from error
    return signature
