"""The tables. Times are UNIX seconds (UTC); the API turns them into RFC 3339.

Must never hold what can be derived from a revision's content, except where a query needs it; and
then `verify` compares both.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, UniqueConstraint, false, text, true
from sqlmodel import Field, SQLModel

from cloud.store.lanes import lane_of_row
from common.revision import GENESIS


class Vehicle(SQLModel, table=True):
    """What is known of a vehicle now: its last status, its totals, the state of its estimate."""

    __table_args__ = (
        Index("vehicle_not_started", "bundle", "vehicle_id", sqlite_where=text("NOT started")),
        Index("vehicle_of_cohort", "cohort", "vehicle_id"),
        Index("vehicle_by_last_seen", "last_seen_at", "vehicle_id"),
        Index("vehicle_by_breaches", "breaches", "vehicle_id"),
        Index("vehicle_by_odometer", "odometer", "vehicle_id"),
        Index("vehicle_by_error", "last_trip_error_v", "vehicle_id"),
        Index("vehicle_by_soh", "soh", "vehicle_id"),
        Index("vehicle_by_drift", "drift", "vehicle_id"),
    )

    vehicle_id: str = Field(primary_key=True)
    first_seen_at: float
    last_seen_at: float | None = None
    bundle: str | None = None
    revision: int | None = None  # that the vehicle says it runs
    online: bool | None = None
    agent_version: str | None = None
    outbox_depth: int | None = None
    dropped_trips: int | None = None
    dropped_breaches: int | None = None
    refused_samples: int | None = None
    refused_messages: int | None = None
    trips: int = 0
    breaches: int = 0
    odometer: float | None = None
    last_trip_error_v: float | None = None
    last_trip_received_at: float | None = None
    calibrations: int = 0  # revisions of its present bundle that stand
    failures: int = 0  # breaches in a row, since a revision was applied, that brought none
    estimate_state: str = "learning"
    started: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    # Last, where an older file gets them.
    on_trial: bool | None = None
    fallen_back: int | None = None
    key_statement: int | None = None
    trips_since_word: int | None = None
    bundle_release: int | None = None  # the highest that it ever believed, as it says
    time_known: bool | None = None  # whether its clock had been set when it said so
    provisional: int | None = None  # the step of its own that it says it runs; 0: none
    cohort: str = Field(default="default", sa_column_kwargs={"server_default": "default"})
    # Read off its newest revision (`figures_revision`) when that was made: to sort and filter by.
    soh: float | None = None
    soh_std: float | None = None
    drift: float | None = None  # loss of state of health over the next 1,000 odometer units
    figures_revision: int | None = None
    relative_std: float | None = None  # of its parameters, to the prior's
    error_left: float | None = None  # on the trip that it was made of, in thresholds
    lane: int | None = Field(
        default=None,
        nullable=False,
        sa_column_kwargs={"default": lane_of_row, "server_default": text("0")},
    )
    label: str | None = None  # what operators call it
    note: str | None = None


class Trip(SQLModel, table=True):
    """The summary of one trip, as the vehicle sent it."""

    __table_args__ = (
        UniqueConstraint("message_id", "vehicle_id"),
        Index("trip_by_odometer", "vehicle_id", "odometer_end", "id"),
        Index("trip_received", "received_at", "error_v"),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    message_id: str
    trip_id: str
    bundle: str
    revision: int
    started_at: float
    duration_s: float
    odometer_start: float
    odometer_end: float
    samples: int
    refused_samples: int
    error_v: float
    band95_v: float
    coverage95: float
    feature_means: bytes = Field(sa_type=LargeBinary)
    breach: bool
    partial: bool
    received_at: float
    # Last, where an older file gets it: false where the vehicle's clock had not been set.
    time_known: bool = Field(default=True, sa_column_kwargs={"server_default": true()})
    provisional: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})


class Breach(SQLModel, table=True):
    """A breach with its trace (JSON), and what became of it: pending, calibrated or declined.

    Who reads a trace asks `cloud.traces.reading`: it may be in the archive.
    """

    __table_args__ = (
        UniqueConstraint("message_id", "vehicle_id"),
        Index(
            "breach_pending",
            "vehicle_id",
            "odometer",
            "id",
            sqlite_where=text("state = 'pending'"),
        ),
        Index(
            "breach_pending_of_lane",
            "lane",
            "id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
        Index("breach_received", "received_at"),
        Index("breach_by_odometer", "vehicle_id", "odometer", "id"),
        Index(
            "breach_calibrated",  # all that `verify` asks of a million breaches
            "vehicle_id",
            "message_id",
            sqlite_where=text("state = 'calibrated'"),
            postgresql_where=text("state = 'calibrated'"),
        ),
        Index("breach_unheard", "id", sqlite_where=text("state = 'declined' AND heard_at IS NULL")),
        Index(
            "breach_to_archive",
            "received_at",
            "id",
            sqlite_where=text("archived_in IS NULL AND state <> 'pending'"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    message_id: str
    trip_id: str
    bundle: str
    revision: int
    odometer: float
    error_v: float
    threshold_v: float
    trace: bytes = Field(sa_type=LargeBinary)
    received_at: float
    state: str = "pending"
    reason: str | None = None
    decided_at: float | None = None
    heard_at: float | None = None  # when the broker took the news that it was declined
    provisional: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    lane: int | None = Field(
        default=None,
        nullable=False,
        sa_column_kwargs={"default": lane_of_row, "server_default": text("0")},
    )
    # How often a worker ended over it; from 1 on it is calibrated alone.
    tries: int = Field(default=0, sa_column_kwargs={"server_default": text("0")})
    archived_in: str | None = None  # the file that has the trace; then `trace` is empty


class RevisionRow(SQLModel, table=True):
    """A revision: the signed bytes, the hash, and the vehicle's verdict."""

    __tablename__ = "revision"
    __table_args__ = (
        UniqueConstraint("vehicle_id", "number"),
        UniqueConstraint("vehicle_id", "cause_message_id"),
        Index(
            "revision_unanswered",
            "vehicle_id",
            "number",
            sqlite_where=text("verdict IS NULL"),
        ),
        Index(
            "revision_unpublished",
            "id",
            sqlite_where=text("published_at IS NULL"),
            postgresql_where=text("published_at IS NULL"),
        ),
        Index("revision_created", "created_at"),
        Index("revision_to_approve", "id", sqlite_where=text("approval = 'pending'")),
        Index(
            "revision_replacement",
            "vehicle_id",
            "number",
            sqlite_where=text("kind = 'replacement'"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    number: int
    bundle: str
    odometer: float
    cause_message_id: str
    content: bytes = Field(sa_type=LargeBinary)
    hash: str
    key_id: str
    signature: str
    created_at: float
    published_at: float | None = None
    verdict: str | None = None
    verdict_reason: str | None = None
    verdict_detail: str | None = None
    verdict_at: float | None = None
    trace_error_before_v: float | None = None  # as the vehicle measured it
    trace_error_after_v: float | None = None
    # Last, where an older file gets it: the kind of its cause.
    kind: str = Field(default="breach", sa_column_kwargs={"server_default": "breach"})
    confirmed_at: float | None = None  # it has proven itself on the vehicle's next trip
    next_trip_error_before_v: float | None = None  # of what it replaced, on that trip
    next_trip_error_after_v: float | None = None
    inputs: bytes | None = Field(default=None, sa_type=LargeBinary)  # cloud.audit.inputs
    # The hash of the revision before: the database itself refuses any other.
    parent_hash: str = Field(default=GENESIS, sa_column_kwargs={"server_default": GENESIS})
    approval: str | None = None  # pending, approved or rejected; None: it needed none
    approval_by: str | None = None
    approval_at: float | None = None
    approval_why: str | None = None


class ProvisionalRow(SQLModel, table=True):
    """What a vehicle made for itself while it was cut off, as it sent it: beside the chain."""

    __tablename__ = "provisional"
    __table_args__ = (
        UniqueConstraint("message_id", "vehicle_id"),
        Index("provisional_by_odometer", "vehicle_id", "odometer", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    message_id: str
    bundle: str
    base: int
    step: int
    odometer: float
    content: bytes = Field(sa_type=LargeBinary)  # the message
    received_at: float


class FleetPriorRow(SQLModel, table=True):
    """A version of a bundle's fleet prior, and the size of the fleet when it was made."""

    __tablename__ = "fleet_prior"
    __table_args__ = (UniqueConstraint("bundle", "version"),)

    id: int | None = Field(default=None, primary_key=True)
    bundle: str
    version: int
    content: bytes = Field(sa_type=LargeBinary)
    hash: str  # SHA-256 of the content
    made_at: float
    fleet_vehicles: int
    fleet_revisions: int


class BatteryOrder(SQLModel, table=True):
    """Somebody's word that a battery was replaced; `revision` is what it brought."""

    __tablename__ = "battery_order"
    __table_args__ = (
        UniqueConstraint("vehicle_id", "odometer"),
        Index("battery_order_pending", "id", sqlite_where=text("revision IS NULL")),
        Index("battery_order_by_time", "ordered_at", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    odometer: float
    ordered_by: str
    why: str
    ordered_at: float
    revision: int | None = None


class BundleFiles(SQLModel, table=True):
    """The files of a bundle that was uploaded, or announced over the air."""

    __tablename__ = "bundle_files"

    sha256: str = Field(primary_key=True)
    manifest: bytes = Field(sa_type=LargeBinary)
    model: bytes = Field(sa_type=LargeBinary)
    added_at: float
    added_by: str | None = None
    why: str | None = None


class Release(SQLModel, table=True):
    """Somebody's word that a vehicle shall run a bundle; from its signature on a release.

    `content` are the signed bytes. `state` is what the vehicle said last; `missing` how many chunks
    it had still to fetch when it asked last.
    """

    __table_args__ = (
        UniqueConstraint("vehicle_id", "number"),
        Index("release_ordered", "id", sqlite_where=text("number IS NULL")),
        Index(
            "release_unheard",
            "vehicle_id",
            "number",
            sqlite_where=text("number IS NOT NULL AND state IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    bundle: str
    reason: str
    ordered_at: float
    number: int | None = None
    content: bytes | None = Field(default=None, sa_type=LargeBinary)
    hash: str | None = None
    key_id: str | None = None
    signature: str | None = None
    published_at: float | None = None
    missing: int | None = None
    state: str | None = None
    state_reason: str | None = None
    state_detail: str | None = None
    state_at: float | None = None


class RollBackOrder(SQLModel, table=True):
    """Somebody's wish for the content of an earlier revision; `revision` is what it brought."""

    __tablename__ = "roll_back_order"
    __table_args__ = (
        Index("roll_back_order_pending", "id", sqlite_where=text("done_at IS NULL")),
        Index("roll_back_order_by_time", "ordered_at", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    to_revision: int
    ordered_by: str
    why: str
    ordered_at: float
    done_at: float | None = None
    revision: int | None = None
    problem: str | None = None  # why it brought none


class KeyStatementRow(SQLModel, table=True):
    """A signed statement of which keys may sign (JSON), by its number."""

    __tablename__ = "key_statement"

    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    signed: bytes = Field(sa_type=LargeBinary)
    made_at: float


class SigningKey(SQLModel, table=True):
    """A public key that has signed revisions here: 32 raw bytes as hex."""

    __tablename__ = "signing_key"

    key_id: str = Field(primary_key=True)
    public_key: str


class Quarantine(SQLModel, table=True):
    """A message that was refused, with its first bytes and the reason.

    `vehicle_id` is the vehicle's on whose topic it came; None where that is no topic of ours.
    """

    __table_args__ = (Index("quarantine_of_vehicle", "vehicle_id", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    topic: str
    payload: bytes = Field(sa_type=LargeBinary)
    payload_bytes: int
    error: str
    reason: str
    received_at: float  # for the last time
    digest: str = Field(unique=True)  # SHA-256 over topic and payload: the same again is one row
    times: int = 1
    vehicle_id: str | None = None  # last, where an older file gets it
