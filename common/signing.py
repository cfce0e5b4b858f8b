"""Sign revisions and verify them: Ed25519, keys known by the first 16 hex digits of their hash.

Must never read a private key on the vehicle: the agent only holds public keys.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.errors import KeyFileError, SignatureError
from common.messages import SignedRevision

TrustedKeys = Mapping[str, Ed25519PublicKey]

# RFC 8410, section 4: the SubjectPublicKeyInfo of an Ed25519 key is these bytes and the key's 32.
_SPKI_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")
_RAW_BYTES: Final = 32
_BEGIN, _END = b"-----BEGIN PUBLIC KEY-----", b"-----END PUBLIC KEY-----"
# `serialization` is imported where it is needed: a megabyte that driving has no use for.


class Signer(Protocol):
    """Who signs: a private key, or whoever holds one and lets nobody see it."""

    def public_key(self) -> Ed25519PublicKey:
        """Whose signatures it makes."""
        ...

    def sign(self, content: bytes, /) -> bytes:
        """The signature, 64 bytes (Ed25519)."""
        ...


def key_id(public_key: Ed25519PublicKey) -> str:
    """Short name of a key: 16 hex digits of SHA-256 over its 32 raw bytes."""
    return hashlib.sha256(public_key.public_bytes_raw()).hexdigest()[:16]


def sign(content: bytes, key: Signer) -> SignedRevision:
    """Wrap the canonical bytes of a revision with the key's signature."""
    return SignedRevision(
        key_id=key_id(key.public_key()),
        signature=key.sign(content).hex(),
        revision=content.decode(),
    )


def verify(message: SignedRevision, trusted: TrustedKeys) -> bytes:
    """The signed bytes. Raises SignatureError when the key is unknown or the signature wrong."""
    content = message.revision.encode()
    check_signature(trusted, message.key_id, message.signature, content)
    return content


def check_signature(keys: TrustedKeys, name: str, signature: str, content: bytes) -> None:
    """Raises SignatureError: the key is not among these, or did not make the signature (hex)."""
    key = keys.get(name)
    if key is None:
        raise SignatureError(f"key {name} is not among the trusted ones", "untrusted_key")
    try:
        key.verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f"it was not made by key {name}") from error


def create_key_pair(private_path: Path, public_path: Path) -> str:
    """Write a new key pair (PEM; the private one readable by its owner alone); its key id."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _refuse_existing(private_path, public_path)
    _write_new(private_path, private, 0o600)
    _write_new(public_path, public, 0o644)
    return key_id(key.public_key())


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private key. Raises KeyFileError."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise KeyFileError(path, "holds no readable private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(path, "holds a key of another kind than Ed25519")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key. Raises KeyFileError."""
    content = _read(path)
    return _plain_public_key(content) or _any_public_key(content, path)


def _plain_public_key(content: bytes) -> Ed25519PublicKey | None:
    """The only kind that is taken, in the form in which it is written everywhere; else None."""
    body = content.strip()
    if not (body.startswith(_BEGIN) and body.endswith(_END)):
        return None
    try:
        der = base64.b64decode(b"".join(body[len(_BEGIN) : -len(_END)].split()), validate=True)
    except ValueError:
        return None
    raw = der.removeprefix(_SPKI_PREFIX)
    if len(raw) != _RAW_BYTES or len(der) != len(_SPKI_PREFIX) + _RAW_BYTES:
        return None
    return Ed25519PublicKey.from_public_bytes(raw)


def _any_public_key(content: bytes, path: Path) -> Ed25519PublicKey:
    """What the library makes of it, or what is wrong with it."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(path, "holds no readable public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(path, "holds a key of another kind than Ed25519")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(path, f"cannot be read ({error.strerror})") from error


def _refuse_existing(*paths: Path) -> None:
    """Look at both before writing either: half a pair is of no use to anybody."""
    for path in paths:
        if path.exists():
            raise KeyFileError(path, "exists already and is not overwritten")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise KeyFileError(path, f"cannot be written ({error.strerror})") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        os.fsync(file.fileno())
