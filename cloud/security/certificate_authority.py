"""The fleet's certificate authority for Mosquitto: a folder of its own, apart from the service.

Each certificate names one identity (its CN), which is all that the broker's access list believes.
The folder holds the authority's key, what was issued, and the list of what was revoked; the service
needs none of it. Must never sign a name that was not ordered, nor for a key that nobody has shown
to have, nor one name for two keys at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cloud.errors import AuthorityError
from cloud.security import certificates
from cloud.security.certificates import Kind, PublicKey
from cloud.security.safe_files import replace_file, write_new

AUTHORITY_DAYS: Final = 3650
KEY, CERTIFICATE, INDEX, REVOKED = "ca.key", "ca.crt", "index.json", "ca.crl"

Reason = Literal["key_compromise", "superseded", "cessation_of_operation", "unspecified"]


class Issued(msgspec.Struct, frozen=True):
    """One certificate. Times are UNIX seconds; `key` is the SHA-256 of its public key."""

    serial: str
    name: str
    kind: Kind
    key: str
    issued_at: float
    expires_at: float
    revoked_at: float | None = None
    reason: Reason = "unspecified"

    def stands(self, now: float) -> bool:
        """Whether the broker lets it in."""
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True)
class Order:
    """What is ordered: a certificate for this name, kind and time. A broker has host names, too."""

    name: str
    kind: Kind
    days: int
    hosts: Sequence[str] = ()


def create(folder: Path, name: str, now: datetime) -> None:
    """A new authority. Raises AuthorityError: there is one already, or it cannot be written."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certificates.authority(name, key, now, now + timedelta(days=AUTHORITY_DAYS))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_new(folder / KEY, pem, 0o600)
    replace_file(folder / CERTIFICATE, certificate.public_bytes(Encoding.PEM), 0o644)
    made = Authority(folder, key, certificate)
    made.save([], now)


def load(folder: Path) -> Authority:
    """Raises AuthorityError."""
    try:
        key = load_pem_private_key((folder / KEY).read_bytes(), None)
        certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise AuthorityError(f"there is none that can be read in {folder} ({error})") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"the key in {folder} is on no elliptic curve")
    if key.public_key() != certificate.public_key():
        raise AuthorityError(f"key and certificate in {folder} do not belong together")
    return Authority(folder, key, certificate)


class Authority:
    """An authority that is there."""

    def __init__(
        self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        self._folder, self._key, self.certificate = folder, key, certificate

    def issued(self) -> list[Issued]:
        """Everything ever issued, the oldest first. Raises AuthorityError."""
        try:
            return msgspec.json.decode((self._folder / INDEX).read_bytes(), type=list[Issued])
        except (OSError, msgspec.MsgspecError) as error:
            raise AuthorityError(f"what it issued cannot be read ({error})") from error

    def sign(self, order: Order, request: bytes, now: datetime, *, replace: bool = False) -> bytes:
        """The certificate (PEM) for a request (PEM) that fits the order. Raises AuthorityError.

        The same key again is a renewal. Another key for a name that has a certificate is refused,
        unless it is said to `replace` that one, which is then revoked.
        """
        certificates.require_name(order.name, order.kind)
        key = certificates.key_of(request, order.name)
        return self._issue(order, key, now, replace=replace)

    def make(self, order: Order, now: datetime, *, replace: bool = False) -> tuple[bytes, bytes]:
        """Certificate and new private key (PEM), for what is no vehicle. Raises AuthorityError."""
        if order.kind == "vehicle":
            raise AuthorityError("a vehicle makes its own key: `edge-agent enroll`, then --csr")
        certificates.require_name(order.name, order.kind)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = self._issue(order, key.public_key(), now, replace=replace)
        return pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def revoke(self, name: str, reason: Reason, now: datetime) -> int:
        """Every certificate of a name that stands; how many. Raises AuthorityError: none does."""
        found = self.issued()
        changed = _revoked(found, lambda one: one.name == name, reason, now)
        count = sum(a != b for a, b in zip(found, changed, strict=True))
        if not count:
            raise AuthorityError(f"{name} has no certificate that stands")
        self.save(changed, now)
        return count

    def save(self, issued: Sequence[Issued], now: datetime) -> None:
        """Keep what was issued, and the list of what was revoked."""
        revoked = [(int(i.serial, 16), i.revoked_at, i.reason) for i in issued if i.revoked_at]
        crl = certificates.revocation_list(self.certificate, self._key, revoked, now)
        replace_file(self._folder / INDEX, msgspec.json.encode(issued), 0o644)
        replace_file(self._folder / REVOKED, crl.public_bytes(Encoding.PEM), 0o644)

    def _issue(self, order: Order, key: PublicKey, now: datetime, *, replace: bool) -> bytes:
        digest = _digest(key)
        found = self.issued()
        rivals = [i for i in found if i.name == order.name and i.stands(now.timestamp())]
        if any(i.kind != order.kind for i in rivals):
            raise AuthorityError(f"{order.name} is the name of a {rivals[0].kind} already")
        if any(i.key != digest for i in rivals):
            if not replace:
                raise AuthorityError(
                    f"{order.name} has a certificate for another key; is that key lost or stolen, "
                    "say --replace: it is then revoked"
                )
            found = _revoked(
                found, lambda i: i.name == order.name and i.key != digest, "superseded", now
            )
        end = min(now + timedelta(days=order.days), self.certificate.not_valid_after_utc)
        certificate = certificates.leaf(
            order.name, order.kind, order.hosts, key, (self.certificate, self._key), (now, end)
        )
        serial = f"{certificate.serial_number:x}"
        # First the index: a certificate that nobody knows of could never be revoked.
        stamp = (now.timestamp(), end.timestamp())
        self.save([*found, Issued(serial, order.name, order.kind, digest, *stamp)], now)
        return certificate.public_bytes(Encoding.PEM)


def _revoked(
    issued: Sequence[Issued], which: Callable[[Issued], bool], reason: Reason, now: datetime
) -> list[Issued]:
    at = now.timestamp()
    return [
        msgspec.structs.replace(one, revoked_at=at, reason=reason)
        if which(one) and one.stands(at)
        else one
        for one in issued
    ]


def _digest(key: PublicKey) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize().hex()
