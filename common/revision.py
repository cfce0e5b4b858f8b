"""The revision: one immutable, numbered set of parameters of one vehicle, and its hash chain.

Must never be changed once made: a correction is a new revision with a higher number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec

from common.errors import ChainError, MalformedMessageError, UnknownSchemaError
from common.json_document import decode_document
from common.messages import (
    Believable,
    Count,
    Digest,
    Growth,
    Identifier,
    MessageId,
    NonNegative,
    Odometer,
    Provisional,
    RevisionNumber,
    States,
    UnixTime,
)

REVISION_SCHEMA: Final = 1
GENESIS: Final = "0" * 64


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why the revision exists, and what the calibration saw.

    `kind`: a breach; the fleet's prior, with which a new vehicle starts; a replaced battery, which
    starts anew; an operator, who wants the content of revision `returns_to` again and says `why`;
    or an operator, who wants breaches replayed from revision `returns_to` on: then `replays` is the
    breach that the revision was calibrated on. Only a breach, replayed or not, has a trip: for the
    others `message_id` names the message or order that brought the revision, `trip_id` and the
    figures are empty.

    `nis` is the normalised innovation squared over `points` measurements; errors are the mean
    absolute error on the breach trace before and after, of the trip aligned with its first sample.
    `finding` is what the evidence says: the battery drifted as it was expected to, or it changed
    at once (replaced, or a sudden fault).
    """

    kind: Literal["breach", "fleet_prior", "replacement", "roll_back", "recalibration"]
    finding: Literal["drift", "changed_battery"] = "drift"
    message_id: MessageId
    trip_id: Identifier | None = None
    points: Count = 0
    nis: NonNegative = 0.0
    error_before_v: NonNegative = 0.0
    error_after_v: NonNegative = 0.0
    returns_to: Count = 0
    ordered_by: Annotated[str, msgspec.Meta(max_length=64)] = ""
    why: Annotated[str, msgspec.Meta(max_length=256)] = ""
    replays: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""


def starts_a_battery(cause: Cause) -> bool:
    """Whether the revision begins anew with a battery, instead of going on from a breach."""
    return cause.kind in {"fleet_prior", "replacement"}


def is_on_trial(cause: Cause) -> bool:
    """Whether the revision must prove itself against the one before on the vehicle's next trip.

    A new battery has none to compare with, and what an operator returns to was meant to differ.
    """
    return cause.kind in {"breach", "fleet_prior", "recalibration"}


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """theta [P] and rate [P] (per odometer unit) at `odometer`, with their joint covariance.

    `covariance` is the upper triangle, row by row, of the [2P, 2P] matrix over (theta, rate).
    `base` is the number of the revision whose posterior was this one's prior (0: none, it starts
    from version `prior_version` of the fleet's prior, 0 being the manifest's); `parent_hash` links
    to the revision before. Numbers follow each other, except after `resumes_after`: the number that
    the vehicle ran, of a history that was lost to the cloud. `rate_growth` [P] per odometer unit
    (empty: the manifest's); `discrepancy_std_v` is the vehicle's own model discrepancy, learned
    from `discrepancy_trips` trips (None: the manifest's). `inputs_hash` is the SHA-256 of what the
    cloud keeps beside the revision of how it was made (empty: nothing is kept).
    """

    schema: int = REVISION_SCHEMA
    vehicle_id: Identifier
    number: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    resumes_after: RevisionNumber = 0
    parent_hash: Digest
    base: Count
    prior_version: Count = 0
    bundle: Digest
    odometer: Odometer
    theta: States
    rate: States
    covariance: Annotated[list[Believable], msgspec.Meta(max_length=2080)]
    rate_growth: Annotated[list[Growth], msgspec.Meta(max_length=32)] = []
    discrepancy_std_v: NonNegative | None = None
    discrepancy_trips: NonNegative = 0.0
    cause: Cause
    created_at: UnixTime
    code_version: str
    inputs_hash: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


def encode_revision(revision: Revision) -> bytes:
    """The canonical bytes that are hashed, signed, stored and sent; floats survive exactly."""
    return msgspec.json.encode(revision)


def decode_revision(content: bytes) -> Revision:
    """Parse the canonical bytes. Raises UnknownSchemaError, MalformedMessageError."""
    revision = decode_document(content, Revision, REVISION_SCHEMA)
    check_states("Revision", revision)
    return revision


def check_states(name: str, carried: Revision | Provisional) -> None:
    """Raises MalformedMessageError unless theta, rate and covariance fit each other."""
    states = 2 * len(carried.theta)
    if len(carried.rate) != len(carried.theta):
        raise MalformedMessageError(name, "theta and rate differ in length")
    if len(carried.rate_growth) not in {0, len(carried.theta)}:
        raise MalformedMessageError(name, "rate_growth does not fit theta")
    if len(carried.covariance) != states * (states + 1) // 2:
        raise MalformedMessageError(name, "the covariance does not fit theta")


def revision_hash(content: bytes) -> str:
    """SHA-256 of the canonical bytes; they hold the parent's hash, which makes the chain."""
    return hashlib.sha256(content).hexdigest()


def verify_chain(vehicle_id: str, links: Iterable[tuple[bytes, str]]) -> tuple[int, str]:
    """Walk (content, recorded hash) of one vehicle in order; (count, head hash).

    Raises ChainError at the first link whose content, hash, number or parent does not fit.
    """
    count, number, head = 0, 0, GENESIS
    for content, recorded in links:
        number, head = _verify_link(vehicle_id, number, head, content, recorded)
        count += 1
    return count, head


def _verify_link(
    vehicle_id: str, before: int, head: str, content: bytes, recorded: str
) -> tuple[int, str]:
    """(number, hash) of a link that follows revision `before`, whose hash is `head`."""
    found = revision_hash(content)
    if found != recorded:
        raise ChainError(vehicle_id, before + 1, "its content does not have the recorded hash")
    try:
        revision = decode_revision(content)
    except (MalformedMessageError, UnknownSchemaError) as error:
        raise ChainError(vehicle_id, before + 1, f"its content cannot be read ({error})") from error
    number = max(before, revision.resumes_after) + 1
    if (revision.vehicle_id, revision.number) != (vehicle_id, number):
        raise ChainError(vehicle_id, number, f"it is {revision.vehicle_id}'s {revision.number}")
    if revision.parent_hash != head:
        raise ChainError(vehicle_id, number, "its parent hash is not its predecessor's hash")
    return number, found
