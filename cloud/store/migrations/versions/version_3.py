"""Version 3: releases, roll-backs, keys, trials, what vehicles made for themselves."""

from __future__ import annotations

from typing import Final

from alembic import op

from cloud.store import triggers
from cloud.store.migrations.statements import run
from cloud.store.triggers import Rule

revision = "3"
down_revision = "2"

PROVISIONALS: Final = Rule("provisional", "provisionals")
STATEMENTS: Final = (
    "ALTER TABLE vehicle ADD COLUMN on_trial BOOLEAN",
    "ALTER TABLE vehicle ADD COLUMN fallen_back INTEGER",
    "ALTER TABLE vehicle ADD COLUMN key_statement INTEGER",
    "ALTER TABLE vehicle ADD COLUMN trips_since_word INTEGER",
    "ALTER TABLE revision ADD COLUMN confirmed_at FLOAT",
    "ALTER TABLE revision ADD COLUMN next_trip_error_before_v FLOAT",
    "ALTER TABLE revision ADD COLUMN next_trip_error_after_v FLOAT",
    "ALTER TABLE trip ADD COLUMN time_known BOOLEAN DEFAULT 1 NOT NULL",
    "ALTER TABLE vehicle ADD COLUMN time_known BOOLEAN",
    "ALTER TABLE vehicle ADD COLUMN bundle_release INTEGER",
    "ALTER TABLE vehicle ADD COLUMN provisional INTEGER",
    "ALTER TABLE trip ADD COLUMN provisional INTEGER DEFAULT 0 NOT NULL",
    "ALTER TABLE breach ADD COLUMN provisional INTEGER DEFAULT 0 NOT NULL",
    """CREATE TABLE bundle_files (
        sha256 VARCHAR NOT NULL,
        manifest BLOB NOT NULL,
        model BLOB NOT NULL,
        added_at FLOAT NOT NULL,
        PRIMARY KEY (sha256)
    )""",
    """CREATE TABLE key_statement (
        number INTEGER NOT NULL,
        signed BLOB NOT NULL,
        made_at FLOAT NOT NULL,
        PRIMARY KEY (number)
    )""",
    """CREATE TABLE provisional (
        id INTEGER NOT NULL,
        vehicle_id VARCHAR NOT NULL,
        message_id VARCHAR NOT NULL,
        bundle VARCHAR NOT NULL,
        base INTEGER NOT NULL,
        step INTEGER NOT NULL,
        odometer FLOAT NOT NULL,
        content BLOB NOT NULL,
        received_at FLOAT NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (message_id, vehicle_id)
    )""",
    """CREATE TABLE release (
        id INTEGER NOT NULL,
        vehicle_id VARCHAR NOT NULL,
        bundle VARCHAR NOT NULL,
        reason VARCHAR NOT NULL,
        ordered_at FLOAT NOT NULL,
        number INTEGER,
        content BLOB,
        hash VARCHAR,
        key_id VARCHAR,
        signature VARCHAR,
        published_at FLOAT,
        missing INTEGER,
        state VARCHAR,
        state_reason VARCHAR,
        state_detail VARCHAR,
        state_at FLOAT,
        PRIMARY KEY (id),
        UNIQUE (vehicle_id, number)
    )""",
    """CREATE TABLE roll_back_order (
        id INTEGER NOT NULL,
        vehicle_id VARCHAR NOT NULL,
        to_revision INTEGER NOT NULL,
        ordered_by VARCHAR NOT NULL,
        why VARCHAR NOT NULL,
        ordered_at FLOAT NOT NULL,
        done_at FLOAT,
        revision INTEGER,
        problem VARCHAR,
        PRIMARY KEY (id)
    )""",
    "CREATE INDEX provisional_by_odometer ON provisional (vehicle_id, odometer, id)",
    "CREATE INDEX release_ordered ON release (id) WHERE number IS NULL",
    "CREATE INDEX roll_back_order_pending ON roll_back_order (id) WHERE done_at IS NULL",
)


def upgrade() -> None:
    """From version 2."""
    connection = op.get_bind()
    run(connection, STATEMENTS)
    triggers.create(connection, (PROVISIONALS,))
