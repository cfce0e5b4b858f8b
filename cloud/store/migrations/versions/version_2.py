"""Version 2: fleet priors, replaced batteries."""

from __future__ import annotations

from typing import Final

from alembic import op

from cloud.store import triggers
from cloud.store.migrations.statements import run
from cloud.store.triggers import Rule

revision = "2"
down_revision = "1"

REVISIONS: Final = Rule(
    "revision",
    "revisions",
    "id, vehicle_id, number, bundle, odometer, cause_message_id, content, hash, key_id, signature, "
    "created_at, kind",
    "number",
    "vehicle_id",
)
PRIORS: Final = Rule("fleet_prior", "fleet priors", "", "version", "bundle")
STATEMENTS: Final = (
    "ALTER TABLE vehicle ADD COLUMN started BOOLEAN DEFAULT 0 NOT NULL",
    "UPDATE vehicle SET started = true WHERE vehicle_id IN (SELECT vehicle_id FROM revision)",
    "CREATE INDEX vehicle_not_started ON vehicle (bundle, vehicle_id) WHERE NOT started",
    "ALTER TABLE revision ADD COLUMN kind VARCHAR DEFAULT 'breach' NOT NULL",
    """CREATE INDEX revision_replacement ON revision (vehicle_id, number)
    WHERE kind = 'replacement'""",
    """CREATE TABLE battery_order (
        id INTEGER NOT NULL,
        vehicle_id VARCHAR NOT NULL,
        odometer FLOAT NOT NULL,
        ordered_by VARCHAR NOT NULL,
        why VARCHAR NOT NULL,
        ordered_at FLOAT NOT NULL,
        revision INTEGER,
        PRIMARY KEY (id),
        UNIQUE (vehicle_id, odometer)
    )""",
    """CREATE TABLE fleet_prior (
        id INTEGER NOT NULL,
        bundle VARCHAR NOT NULL,
        version INTEGER NOT NULL,
        content BLOB NOT NULL,
        hash VARCHAR NOT NULL,
        made_at FLOAT NOT NULL,
        fleet_vehicles INTEGER NOT NULL,
        fleet_revisions INTEGER NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (bundle, version)
    )""",
    "CREATE INDEX battery_order_pending ON battery_order (id) WHERE revision IS NULL",
)


def upgrade() -> None:
    """From version 1."""
    connection = op.get_bind()
    run(connection, STATEMENTS)
    triggers.replace(connection, REVISIONS)
    triggers.create(connection, (PRIORS,))
