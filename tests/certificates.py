"""A certificate authority for one test: short-lived elliptic-curve certificates in a folder."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud.security.certificates import revocation_list


@dataclass(frozen=True)
class Issued:
    """Where a certificate and its key are."""

    certificate_file: Path
    key_file: Path


class Authority:
    """Issues certificates whose common name is the identity that the broker believes."""

    def __init__(self, folder: Path, name: str = "Test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = self._sign(name, self._key.public_key(), (basic, True), (usage, True))
        self.ca_file = folder / "ca.crt"
        self.ca_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        nobody = revocation_list(certificate, self._key, [], datetime.now(UTC))
        (folder / "ca.crl").write_bytes(nobody.public_bytes(Encoding.PEM))

    def issue(self, common_name: str) -> Issued:
        """A certificate for a client or for a server on loopback."""
        key = ec.generate_private_key(ec.SECP256R1())
        loopback = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        certificate = self._sign(common_name, key.public_key(), (loopback, False))
        issued = Issued(self._folder / f"{common_name}.crt", self._folder / f"{common_name}.key")
        issued.certificate_file.write_bytes(certificate.public_bytes(Encoding.PEM))
        issued.key_file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return issued

    def sign(
        self,
        request_file: Path,
        *,
        days: tuple[int, int] = (0, 1),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Path:
        """What an authority answers to a request: the certificate alone, valid on those days."""
        request = x509.load_pem_x509_csr(request_file.read_bytes())
        assert request.is_signature_valid
        (attribute,) = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = attribute.value
        assert isinstance(name, str)
        key: Any = request.public_key()
        certificate = self._sign(name, key, (x509.ExtendedKeyUsage([usage]), False), days=days)
        signed = self._folder / f"{name}.signed.crt"
        signed.write_bytes(certificate.public_bytes(Encoding.PEM))
        return signed

    def _sign(
        self,
        common_name: str,
        key: ec.EllipticCurvePublicKey,
        *extensions: tuple[x509.ExtensionType, bool],
        days: tuple[int, int] = (0, 1),
    ) -> x509.Certificate:
        """With the identifiers that Python asks for from 3.13 on."""
        today = datetime.now(UTC) - timedelta(hours=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name(self._name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(today + timedelta(days=days[0]))
            .not_valid_after(today + timedelta(days=days[1]))
        )
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        subject = x509.SubjectKeyIdentifier.from_public_key(key)
        for extension, critical in (*extensions, (authority, False), (subject, False)):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
