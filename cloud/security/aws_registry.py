"""A vehicle in AWS IoT Core's registry: expected, enrolled with its own request, put out again.

Must never see a private key, and must do no harm when called again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cloud.errors import AwsEnrolmentError
from common.topics import check_identifier

CLAIM: Final = "claim-"
"""What the client id of a claim begins with (deploy/aws/stack.yaml)."""


@dataclass(frozen=True)
class Enrolled:
    """What the device needs, and what else is active in its name."""

    name: str
    certificate_id: str
    certificate_pem: str
    endpoint: str
    is_new: bool
    other_active: list[str]


def expect(iot: Any, vehicle_id: str, service: str) -> bool:
    """Make a thing that a claim may get a certificate for; whether there was none.

    Raises TopicError, AwsEnrolmentError and what the client raises.
    """
    _check_free(vehicle_id, service)
    is_new = not _is_there(iot, vehicle_id)
    iot.create_thing(thingName=vehicle_id)
    return is_new


def enroll(iot: Any, name: str, request_pem: bytes, policy: str) -> Enrolled:
    """Have `name`'s request signed, unless an active certificate of its key is there already.

    Raises AwsEnrolmentError and what the client raises.
    """
    request = _checked(name, request_pem)
    iot.create_thing(thingName=name)
    active = _active(iot, name)
    own = [one for one in active if _key_of(one["certificatePem"]) == _spki(request)]
    found = own[0] if own else _signed(iot, request_pem)
    # Both say nothing when it is so already: an enrolment that was cut off is completed.
    iot.attach_policy(policyName=policy, target=found["certificateArn"])
    iot.attach_thing_principal(thingName=name, principal=found["certificateArn"])
    return Enrolled(
        name=name,
        certificate_id=found["certificateId"],
        certificate_pem=found["certificatePem"],
        endpoint=iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"],
        is_new=not own,
        other_active=[
            one["certificateId"] for one in active if one["certificateId"] != found["certificateId"]
        ],
    )


def enroll_vehicle(
    iot: Any, vehicle_id: str, request_pem: bytes, policy: str, service: str
) -> Enrolled:
    """See `enroll`. Raises TopicError, too, and AwsEnrolmentError for a name that is taken."""
    _check_free(vehicle_id, service)
    return enroll(iot, vehicle_id, request_pem, policy)


def offboard(iot: Any, name: str, keep: str | None = None) -> list[str]:
    """Deactivate its certificates but the one with the id `keep`; the ids of those that ended.

    The broker cuts their connections. Thing and certificates stay, for the record.
    Raises AwsEnrolmentError when there is no such thing, and what the client raises.
    """
    if not _is_there(iot, name):
        raise AwsEnrolmentError(name, "there is no such thing in the registry")
    ended = [one["certificateId"] for one in _active(iot, name) if one["certificateId"] != keep]
    for certificate_id in ended:
        iot.update_certificate(certificateId=certificate_id, newStatus="INACTIVE")
    return ended


def _check_free(vehicle_id: str, service: str) -> None:
    check_identifier("vehicle id", vehicle_id)
    for taken in (service, CLAIM):
        if vehicle_id.startswith(taken):
            raise AwsEnrolmentError(vehicle_id, f"names that begin with {taken} are no vehicle's")


def _checked(name: str, request_pem: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(request_pem)
    except ValueError as error:
        raise AwsEnrolmentError(name, "its file is no certificate request (PEM)") from error
    names = [
        attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    if names != [name]:
        raise AwsEnrolmentError(name, f"the request is of {', '.join(map(str, names)) or 'nobody'}")
    if not request.is_signature_valid:
        raise AwsEnrolmentError(name, "its request is not signed by its own key")
    return request


def _signed(iot: Any, request_pem: bytes) -> dict[str, str]:
    signed: dict[str, str] = iot.create_certificate_from_csr(
        certificateSigningRequest=request_pem.decode(), setAsActive=True
    )
    return signed


def _active(iot: Any, name: str) -> list[dict[str, str]]:
    """The active certificates of a thing, as AWS describes them."""
    pages = iot.get_paginator("list_thing_principals").paginate(thingName=name)
    ids = [
        principal.rpartition("/")[2]
        for page in pages
        for principal in page["principals"]
        if ":cert/" in principal
    ]
    found = [iot.describe_certificate(certificateId=one)["certificateDescription"] for one in ids]
    return [one for one in found if one["status"] == "ACTIVE"]


def _is_there(iot: Any, name: str) -> bool:
    try:
        iot.describe_thing(thingName=name)
    except iot.exceptions.ResourceNotFoundException:
        return False
    return True


def _key_of(certificate_pem: str) -> bytes:
    return _spki(x509.load_pem_x509_certificate(certificate_pem.encode()))


def _spki(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
