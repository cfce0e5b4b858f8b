"""X.509 for the fleet: what a request must be, certificates, the list of revoked ones (RFC 5280).

Pure but for randomness. Must never take anything from a request but its key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.errors import AuthorityError

Kind = Literal["vehicle", "service", "broker"]
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

SERVICE: Final = "twin-cloud"
_VEHICLE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SERVICE: Final = re.compile(r"twin-cloud(-[A-Za-z0-9_-]{1,48})?")
_HOST: Final = re.compile(r"[A-Za-z0-9.:-]{1,253}")
_LARGEST_REQUEST: Final = 16 * 1024
_LEAST_RSA_BITS: Final = 2048
_CLOCKS_DIFFER: Final = timedelta(hours=1)
_LIST_DAYS: Final = 3650  # Mosquitto refuses everybody once its list has expired


def require_name(name: str, kind: Kind) -> None:
    """Raises AuthorityError: no such thing may have this name."""
    form = {"vehicle": _VEHICLE, "service": _SERVICE, "broker": _HOST}[kind]
    if not form.fullmatch(name):
        raise AuthorityError(f"{name!r} is no name of a {kind} ({form.pattern})")
    if kind == "vehicle" and _SERVICE.fullmatch(name):
        raise AuthorityError(f"{name} is a name of the service, and never a vehicle's")


def key_of(request: bytes, name: str) -> PublicKey:
    """The key of a request for `name`, and nothing but its name. Raises AuthorityError."""
    try:
        found = x509.load_pem_x509_csr(request[:_LARGEST_REQUEST])
        is_possessed = found.is_signature_valid
        key, asks = found.public_key(), list(found.extensions)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AuthorityError(f"the request cannot be read ({error})") from error
    if not is_possessed:
        raise AuthorityError("whoever made the request does not have its key")
    named = [(one.oid, one.value) for one in found.subject]
    if named != [(NameOID.COMMON_NAME, name)]:
        raise AuthorityError(f"the request is for {found.subject.rfc4514_string()}, not CN={name}")
    if asks:
        raise AuthorityError(
            f"the request asks for {asks[0].oid.dotted_string}: a client has its name alone"
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in {"secp256r1", "secp384r1"}:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS:
        return key
    raise AuthorityError("its key is neither on P-256 or P-384 nor RSA of 2048 bits or more")


def authority(
    name: str, key: ec.EllipticCurvePrivateKey, begin: datetime, end: datetime
) -> x509.Certificate:
    """The authority's own certificate: it may sign certificates of clients and servers, no more."""
    own = key.public_key()
    builder = _builder(name, name, own, own, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(is_authority=True), critical=True)
    return builder.sign(key, hashes.SHA256())


def leaf(
    name: str,
    kind: Kind,
    hosts: Sequence[str],
    key: PublicKey,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    times: tuple[datetime, datetime],
) -> x509.Certificate:
    """A client's certificate with its name alone, or a broker's with the hosts that it is."""
    above, signing_key = issuer
    (above_name,) = above.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    builder = _builder(name, str(above_name.value), key, signing_key.public_key(), *times)
    purpose = (
        ExtendedKeyUsageOID.SERVER_AUTH if kind == "broker" else ExtendedKeyUsageOID.CLIENT_AUTH
    )
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if kind == "broker":
        names = [_general(host) for host in dict.fromkeys([name, *hosts])]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signing_key, hashes.SHA256())


def revocation_list(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    revoked: Sequence[tuple[int, float, str]],
    now: datetime,
) -> x509.CertificateRevocationList:
    """Serial, time (UNIX) and reason of each revoked certificate."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - _CLOCKS_DIFFER)
        .next_update(now + timedelta(days=_LIST_DAYS))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
    )
    for serial, at, reason in revoked:
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(serial)
            .revocation_date(datetime.fromtimestamp(at, UTC))
        )
        flag = x509.ReasonFlags[reason]
        if flag is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(flag), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key, hashes.SHA256())


def _builder(
    name: str,
    issuer: str,
    key: PublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    begin: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _CLOCKS_DIFFER)
        .not_valid_after(end)
        .add_extension(above, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
