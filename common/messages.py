"""The messages of the contract: their fields, their bytes, and the checks before one is believed.

JSON; unknown fields are ignored, unknown schema versions refused. Must never let a non-finite
number, a wrong length or another vehicle's message pass.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from common.errors import MalformedMessageError
from common.json_document import decode_document

SCHEMA: Final = 1
MAX_PAYLOAD_BYTES: Final = 128 * 1024  # AWS IoT Core
MAX_TRACE_POINTS: Final = 512

Identifier = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
MessageId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]  # exact in every JSON reader
RevisionNumber = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
MAX_ODOMETER: Final = 1e9  # kilometres or ampere-hours: no vehicle gets there
Odometer = Annotated[float, msgspec.Meta(ge=0, le=MAX_ODOMETER)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
UnixTime = Annotated[float, msgspec.Meta(ge=0, lt=32503680000)]  # up to the year 3000
Believable = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Growth = Annotated[float, msgspec.Meta(ge=0, le=1e3)]
States = Annotated[list[Believable], msgspec.Meta(min_length=1, max_length=32)]
# A column of a trace; one number stands for a column that does not change.
Column = list[float] | float


class TripSummary(msgspec.Struct, frozen=True, kw_only=True):
    """vehicle -> cloud, for every trip. `revision` 0 means the bundle's nominal parameters.

    `time_known` false: `started_at` comes from a clock that nobody had set. Durations always hold.
    `provisional` above 0: driven on that step of the vehicle's own, made on `revision`.
    """

    schema: int = SCHEMA
    message_id: MessageId
    vehicle_id: Identifier
    trip_id: Identifier
    bundle: Digest
    revision: RevisionNumber
    started_at: UnixTime
    duration_s: NonNegative
    odometer_start: Odometer
    odometer_end: Odometer
    samples: Count
    refused_samples: Count
    error_v: NonNegative
    band95_v: NonNegative
    coverage95: Annotated[float, msgspec.Meta(ge=0, le=1)]
    feature_means: list[float]
    breach: bool
    partial: bool = False
    time_known: bool = True
    provisional: Count = 0


class Trace(msgspec.Struct, frozen=True):
    """A trip thinned for the wire. `time_s` from the trip's start, strictly increasing.

    `worst` are the indices of points that were chosen for their error: for a person to see, no
    evidence. No sample of the trip lay farther than `within_v` from straight lines between the
    points (before their rounding); `error_v` is the trip's mean absolute error as the evidence
    alone tells it.
    """

    time_s: Annotated[list[float], msgspec.Meta(min_length=2, max_length=MAX_TRACE_POINTS)]
    features: list[Column]
    voltage_v: list[float]
    worst: Annotated[list[Count], msgspec.Meta(max_length=MAX_TRACE_POINTS)] = []
    within_v: NonNegative | None = None
    error_v: NonNegative | None = None


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """vehicle -> cloud: a trip whose error exceeds the threshold.

    `odometer` is that of the trip's start, where theta is taken for the whole trip. `provisional`
    is the summary's: above 0 the error is not that of `revision`.
    """

    schema: int = SCHEMA
    message_id: MessageId
    vehicle_id: Identifier
    trip_id: Identifier
    bundle: Digest
    revision: RevisionNumber
    odometer: Odometer
    error_v: NonNegative
    threshold_v: NonNegative
    trace: Trace
    provisional: Count = 0


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """vehicle -> cloud, retained, and (offline) the last will.

    `awaiting` names breaches whose outcome the vehicle has not heard: the cloud says it again.
    `bundle_release` is the highest release of a bundle that was ever believed: none at or below it
    is.
    `on_trial`: the revision has not driven a whole trip yet; `fallen_back` counts those that were
    worse. `key_statement` is the number of the last statement about keys that the vehicle believes.
    `question` is a number drawn for this status (empty: nothing is asked): the signed answer
    repeats it. `trips_since_word` counts the trips since the last such answer.
    `time_known` says whether a time source has set the vehicle's clock since it booted.
    """

    schema: int = SCHEMA
    vehicle_id: Identifier
    online: bool
    agent_version: str
    bundle: Digest
    revision: RevisionNumber
    outbox_depth: Count = 0
    dropped_trips: Count = 0
    dropped_breaches: Count = 0
    refused_samples: Count = 0
    refused_messages: Count = 0
    on_trial: bool = False
    fallen_back: Count = 0
    key_statement: Count = 0
    question: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")] = ""
    trips_since_word: Count = 0
    awaiting: Annotated[list[MessageId], msgspec.Meta(max_length=16)] = []
    bundle_release: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    sent_at: UnixTime = 0.0
    time_known: bool = True
    provisional: Count = 0


KeyId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Signature = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]


class SignedRevision(msgspec.Struct, frozen=True, kw_only=True):
    """cloud -> vehicle, retained. `revision` holds the exact bytes that were signed."""

    schema: int = SCHEMA
    key_id: KeyId
    signature: Signature
    revision: Annotated[str, msgspec.Meta(max_length=MAX_PAYLOAD_BYTES)]


class SignedStatement(msgspec.Struct, frozen=True, kw_only=True):
    """Which keys may sign (common.trust); `statement` holds the exact bytes that were signed."""

    key_id: KeyId
    signature: Signature
    statement: Annotated[str, msgspec.Meta(max_length=8192)]


class KeyChain(msgspec.Struct, frozen=True, kw_only=True):
    """cloud -> vehicle, retained: every statement about keys that there ever was, in its turn."""

    schema: int = SCHEMA
    statements: Annotated[list[SignedStatement], msgspec.Meta(min_length=1, max_length=64)]


RefusalReason = Literal[
    "",
    "malformed",
    "unknown_schema",
    "untrusted_key",
    "revoked_key",
    "bad_signature",
    "wrong_vehicle",
    "wrong_bundle",
    "too_large",
    "older",
    "replayed",
    "conflicting",
    "number_too_far",
    "not_newer",
    "out_of_bounds",
    "worse_on_trace",
    "worse_on_next_trip",
]


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """vehicle -> cloud: the verdict on a revision, with the error on the kept trace.

    After `applied` comes a second one about the next trip, with the errors on that: `confirmed`, or
    refused as `worse_on_next_trip`.
    """

    schema: int = SCHEMA
    message_id: MessageId
    vehicle_id: Identifier
    revision: RevisionNumber
    revision_hash: Digest
    verdict: Literal["applied", "refused", "confirmed"]
    reason: RefusalReason = ""
    detail: Annotated[str, msgspec.Meta(max_length=512)] = ""
    error_before_v: float | None = None
    error_after_v: float | None = None
    decided_at: UnixTime
    time_known: bool = True


class Provisional(msgspec.Struct, frozen=True, kw_only=True):
    """vehicle -> cloud: parameters that the vehicle made for itself while nobody answered.

    They grew from revision `base` in `step` steps, the last on the breach `cause`; no revision of
    the chain. theta, rate, covariance and what follows as in a revision; errors in volts, on the
    breach's trace before and after.
    """

    schema: int = SCHEMA
    message_id: MessageId
    vehicle_id: Identifier
    bundle: Digest
    base: RevisionNumber
    step: Annotated[int, msgspec.Meta(ge=1, le=10**9)]
    odometer: Odometer
    theta: States
    rate: States
    covariance: Annotated[list[Believable], msgspec.Meta(max_length=2080)]
    rate_growth: Annotated[list[Growth], msgspec.Meta(max_length=32)] = []
    discrepancy_std_v: NonNegative | None = None
    discrepancy_trips: NonNegative = 0.0
    cause: MessageId
    trip_id: Identifier
    finding: Literal["drift", "changed_battery"]
    points: Count
    nis: NonNegative
    error_before_v: NonNegative
    error_after_v: NonNegative
    made_at: UnixTime
    time_known: bool = True
    code_version: Annotated[str, msgspec.Meta(max_length=64)]


class Declined(msgspec.Struct, frozen=True):
    """A breach that will bring no revision, and why."""

    message_id: MessageId
    reason: Annotated[str, msgspec.Meta(max_length=256)]


class SignedFreshness(msgspec.Struct, frozen=True, kw_only=True):
    """That nothing newer is held back (common.freshness); the exact bytes that were signed."""

    key_id: KeyId
    signature: Signature
    freshness: Annotated[str, msgspec.Meta(max_length=1024)]


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """cloud -> vehicle: these messages are committed; these breaches bring no revision.

    `fresh` answers the question in a status.
    """

    schema: int = SCHEMA
    vehicle_id: Identifier
    message_ids: Annotated[list[MessageId], msgspec.Meta(max_length=1024)] = []
    declined: Annotated[list[Declined], msgspec.Meta(max_length=1024)] = []
    fresh: SignedFreshness | None = None


Message = (
    TripSummary
    | Breach
    | Status
    | SignedRevision
    | Acknowledgement
    | Receipt
    | KeyChain
    | Provisional
)
M = TypeVar("M", bound=msgspec.Struct)


def message_id(vehicle_id: str, trip_id: str, kind: str) -> str:
    """The id of a message: a pure function of what it is about, so that a duplicate is one fact."""
    return hashlib.sha256(f"{vehicle_id}|{trip_id}|{kind}".encode()).hexdigest()[:32]


def encode(message: msgspec.Struct) -> bytes:
    """The bytes for the wire."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """Parse and check one message. Raises UnknownSchemaError, MalformedMessageError."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MalformedMessageError(kind.__name__, f"{len(payload)} bytes are too many")
    return decode_document(payload, kind, SCHEMA)
