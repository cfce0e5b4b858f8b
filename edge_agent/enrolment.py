"""The vehicle's identity: a key that is made here and stays here, a request, a signed certificate.

Must never overwrite a private key, show one, or let one leave its folder.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_agent.errors import EnrolmentError

PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Identity:
    """The files of one vehicle's identity, all in a folder of their own."""

    folder: Path

    @property
    def key(self) -> Path:
        """The private key, readable by its owner alone."""
        return self.folder / "vehicle.key"

    @property
    def request(self) -> Path:
        """What the fleet's authority signs; no secret."""
        return self.folder / "vehicle.csr"

    @property
    def certificate(self) -> Path:
        """The signed certificate."""
        return self.folder / "vehicle.crt"

    @property
    def authority(self) -> Path:
        """The authority that the broker's certificate comes from."""
        return self.folder / "ca.crt"


def request_certificate(identity: Identity, vehicle_id: str) -> bool:
    """Write the request for `vehicle_id`, making the key if there is none; whether it was made.

    The key is kept when there is one: a repeated call makes the same request again.
    Raises EnrolmentError.
    """
    try:
        _make_folder(identity.folder)
        is_new = not identity.key.exists()
        if is_new:
            key = ec.generate_private_key(ec.SECP256R1())
            _write_key(identity.key, key)
        else:
            key = _load_key(identity.key)
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, vehicle_id)]))
            .sign(key, hashes.SHA256())
        )
        _replace(identity.request, request.public_bytes(PEM))
    except OSError as error:
        raise _cannot_write(identity, error) from error
    return is_new


def install_certificate(
    identity: Identity,
    vehicle_id: str,
    certificate_file: Path,
    authority_file: Path | None,
    now: datetime,
) -> datetime:
    """Put a signed certificate in its place once it fits; until when it is valid.

    It has to be of this device's key, of this vehicle, valid now and meant for clients.
    Raises EnrolmentError; what was installed before is then untouched.
    """
    chain, pem = _load_certificates(certificate_file)
    certificate = chain[0]
    _check_valid_now(certificate_file, certificate, now)
    _check_vehicle(certificate_file, certificate, vehicle_id)
    _check_key(certificate_file, certificate, _load_key(identity.key))
    _check_purpose(certificate_file, certificate)
    authority = b""
    if authority_file is not None:
        authorities, authority = _load_certificates(authority_file)
        for issuer in authorities:
            _check_valid_now(authority_file, issuer, now)
    try:
        if authority:
            _replace(identity.authority, authority)
        _replace(identity.certificate, pem)
    except OSError as error:
        raise _cannot_write(identity, error) from error
    return certificate.not_valid_after_utc


def _check_valid_now(path: Path, certificate: x509.Certificate, now: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now <= end:
        raise EnrolmentError(
            f"{path} is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC, and this "
            f"device's clock says {now:%Y-%m-%d %H:%M}. Set the clock, or have it signed again"
        )


def _check_vehicle(path: Path, certificate: x509.Certificate, vehicle_id: str) -> None:
    names = [str(n.value) for n in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [vehicle_id]:
        raise EnrolmentError(
            f"{path} is the certificate of {', '.join(names) or 'nobody'}, and the configuration "
            f"says vehicle_id = {vehicle_id!r}. Take the right file, or correct the configuration"
        )


def _check_key(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    if certificate.public_key() != key.public_key():
        raise EnrolmentError(
            f"{path} was not made for this device's key. Have the request of this device signed"
        )


def _check_purpose(path: Path, certificate: x509.Certificate) -> None:
    with suppress(x509.ExtensionNotFound):
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
            raise EnrolmentError(
                f"{path} is not meant for a client: a broker would refuse it. Have it signed with "
                "extendedKeyUsage = clientAuth"
            )


def _load_certificates(path: Path) -> tuple[list[x509.Certificate], bytes]:
    """The certificates of a PEM file, and their bytes without whatever else the file holds."""
    try:
        chain = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be read ({error.strerror}). Name the file") from error
    except ValueError as error:
        raise EnrolmentError(f"{path} holds no certificate in PEM form. Name another") from error
    return chain, b"".join(certificate.public_bytes(PEM) for certificate in chain)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise EnrolmentError(
            f"There is no key at {path}. Make it first: edge-agent enroll --vehicle ID"
        ) from error
    except OSError as error:
        raise EnrolmentError(f"{path} cannot be read ({error.strerror}). Become root") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise EnrolmentError(
            f"{path} holds no readable private key. Move it away and enroll again"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise EnrolmentError(f"{path} is no elliptic-curve key. Move it away and enroll again")
    return key


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """The whole key appears at once or not at all, and never over another one."""
    pem = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    _write(fresh, pem, 0o600)
    try:
        os.link(fresh, path)
    finally:
        fresh.unlink()
    _sync_folder(path.parent)


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    _write(fresh, content, 0o644)
    fresh.replace(path)
    _sync_folder(path.parent)


def _write(path: Path, content: bytes, mode: int) -> None:
    """A new file on the disk, that belongs to whoever owns its folder (root enrolls the agent)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            owner = folder.parent.stat()
            os.chown(folder, owner.st_uid, owner.st_gid)


def _cannot_write(identity: Identity, error: OSError) -> EnrolmentError:
    return EnrolmentError(
        f"{identity.folder} cannot be written ({error.strerror}). Become root, or the agent's user"
    )
