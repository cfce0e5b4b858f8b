"""Version 1: trips, breaches, revisions."""

from __future__ import annotations

from typing import Final

from alembic import op

from cloud.store import triggers
from cloud.store.migrations.statements import run
from cloud.store.triggers import Rule

revision = "1"
down_revision = None

REVISIONS: Final = Rule(
    "revision",
    "revisions",
    "id, vehicle_id, number, bundle, odometer, cause_message_id, content, hash, key_id, signature, "
    "created_at",
    "number",
    "vehicle_id",
)
STATEMENTS: Final = (
    """CREATE TABLE breach (
        id INTEGER NOT NULL,
        vehicle_id VARCHAR NOT NULL,
        message_id VARCHAR NOT NULL,
        trip_id VARCHAR NOT NULL,
        bundle VARCHAR NOT NULL,
        revision INTEGER NOT NULL,
        odometer FLOAT NOT NULL,
        error_v FLOAT NOT NULL,
        threshold_v FLOAT NOT NULL,
        trace BLOB NOT NULL,
        received_at FLOAT NOT NULL,
        state VARCHAR NOT NULL,
        reason VARCHAR,
        decided_at FLOAT,
        heard_at FLOAT,
        PRIMARY KEY (id),
        UNIQUE (message_id, vehicle_id)
    )""",
    """CREATE TABLE quarantine (
        id INTEGER NOT NULL,
        topic VARCHAR NOT NULL,
        payload BLOB NOT NULL,
        payload_bytes INTEGER NOT NULL,
        error VARCHAR NOT NULL,
        reason VARCHAR NOT NULL,
        received_at FLOAT NOT NULL,
        digest VARCHAR NOT NULL,
        times INTEGER NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (digest)
    )""",
    """CREATE TABLE revision (
        id INTEGER NOT NULL,
        vehicle_id VARCHAR NOT NULL,
        number INTEGER NOT NULL,
        bundle VARCHAR NOT NULL,
        odometer FLOAT NOT NULL,
        cause_message_id VARCHAR NOT NULL,
        content BLOB NOT NULL,
        hash VARCHAR NOT NULL,
        key_id VARCHAR NOT NULL,
        signature VARCHAR NOT NULL,
        created_at FLOAT NOT NULL,
        published_at FLOAT,
        verdict VARCHAR,
        verdict_reason VARCHAR,
        verdict_detail VARCHAR,
        verdict_at FLOAT,
        trace_error_before_v FLOAT,
        trace_error_after_v FLOAT,
        PRIMARY KEY (id),
        UNIQUE (vehicle_id, number),
        UNIQUE (vehicle_id, cause_message_id)
    )""",
    """CREATE TABLE signing_key (
        key_id VARCHAR NOT NULL,
        public_key VARCHAR NOT NULL,
        PRIMARY KEY (key_id)
    )""",
    """CREATE TABLE trip (
        id INTEGER NOT NULL,
        vehicle_id VARCHAR NOT NULL,
        message_id VARCHAR NOT NULL,
        trip_id VARCHAR NOT NULL,
        bundle VARCHAR NOT NULL,
        revision INTEGER NOT NULL,
        started_at FLOAT NOT NULL,
        duration_s FLOAT NOT NULL,
        odometer_start FLOAT NOT NULL,
        odometer_end FLOAT NOT NULL,
        samples INTEGER NOT NULL,
        refused_samples INTEGER NOT NULL,
        error_v FLOAT NOT NULL,
        band95_v FLOAT NOT NULL,
        coverage95 FLOAT NOT NULL,
        feature_means BLOB NOT NULL,
        breach BOOLEAN NOT NULL,
        partial BOOLEAN NOT NULL,
        received_at FLOAT NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (message_id, vehicle_id)
    )""",
    """CREATE TABLE vehicle (
        vehicle_id VARCHAR NOT NULL,
        first_seen_at FLOAT NOT NULL,
        last_seen_at FLOAT,
        bundle VARCHAR,
        revision INTEGER,
        online BOOLEAN,
        agent_version VARCHAR,
        outbox_depth INTEGER,
        dropped_trips INTEGER,
        dropped_breaches INTEGER,
        refused_samples INTEGER,
        refused_messages INTEGER,
        trips INTEGER NOT NULL,
        breaches INTEGER NOT NULL,
        odometer FLOAT,
        last_trip_error_v FLOAT,
        last_trip_received_at FLOAT,
        calibrations INTEGER NOT NULL,
        failures INTEGER NOT NULL,
        estimate_state VARCHAR NOT NULL,
        PRIMARY KEY (vehicle_id)
    )""",
    "CREATE INDEX trip_by_odometer ON trip (vehicle_id, odometer_end, id)",
    "CREATE INDEX breach_pending ON breach (vehicle_id, odometer, id) WHERE state = 'pending'",
    "CREATE INDEX breach_unheard ON breach (id) WHERE state = 'declined' AND heard_at IS NULL",
    "CREATE INDEX revision_unanswered ON revision (vehicle_id, number) WHERE verdict IS NULL",
)


def upgrade() -> None:
    """From an empty database."""
    connection = op.get_bind()
    run(connection, STATEMENTS)
    triggers.create(connection, (REVISIONS,))
