"""Bring the tables of an older file up to date, inside the transaction that opens it.

Must never touch what a revision says. A file that was brought up to date has the tables of a new
one, column for column (a test).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

from cloud.store import lanes, triggers
from cloud.store.metadata import METADATA
from cloud.store.tables import SCHEMA_VERSION

OLDEST: Final = 1

# What leads from a version to the next. Tables that are missing are made afterwards.
_STEPS: Final = {
    1: (
        "ALTER TABLE vehicle ADD COLUMN started BOOLEAN NOT NULL DEFAULT 0",
        "UPDATE vehicle SET started = 1 WHERE vehicle_id IN (SELECT vehicle_id FROM revision)",
        "CREATE INDEX vehicle_not_started ON vehicle (bundle, vehicle_id) WHERE NOT started",
        "ALTER TABLE revision ADD COLUMN kind VARCHAR DEFAULT 'breach' NOT NULL",
        """CREATE INDEX revision_replacement ON revision (vehicle_id, number)
        WHERE kind = 'replacement'""",
    ),
    2: (
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
    ),
    3: (
        "ALTER TABLE vehicle ADD COLUMN cohort VARCHAR DEFAULT 'default' NOT NULL",
        "ALTER TABLE vehicle ADD COLUMN label VARCHAR",
        "ALTER TABLE vehicle ADD COLUMN note VARCHAR",
        "CREATE INDEX vehicle_of_cohort ON vehicle (cohort, vehicle_id)",
        "ALTER TABLE vehicle ADD COLUMN soh FLOAT",
        "ALTER TABLE vehicle ADD COLUMN soh_std FLOAT",
        "ALTER TABLE vehicle ADD COLUMN drift FLOAT",
        "ALTER TABLE vehicle ADD COLUMN figures_revision INTEGER",
        "ALTER TABLE vehicle ADD COLUMN relative_std FLOAT",
        "ALTER TABLE vehicle ADD COLUMN error_left FLOAT",
        "CREATE INDEX vehicle_by_last_seen ON vehicle (last_seen_at, vehicle_id)",
        "CREATE INDEX vehicle_by_breaches ON vehicle (breaches, vehicle_id)",
        "CREATE INDEX vehicle_by_odometer ON vehicle (odometer, vehicle_id)",
        "CREATE INDEX vehicle_by_error ON vehicle (last_trip_error_v, vehicle_id)",
        "CREATE INDEX vehicle_by_soh ON vehicle (soh, vehicle_id)",
        "CREATE INDEX vehicle_by_drift ON vehicle (drift, vehicle_id)",
        "CREATE INDEX trip_received ON trip (received_at, error_v)",
        "CREATE INDEX breach_received ON breach (received_at)",
        "CREATE INDEX revision_created ON revision (created_at)",
        "ALTER TABLE quarantine ADD COLUMN vehicle_id VARCHAR",
        "CREATE INDEX quarantine_of_vehicle ON quarantine (vehicle_id, id)",
        "ALTER TABLE vehicle ADD COLUMN lane INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE breach ADD COLUMN lane INTEGER DEFAULT 0 NOT NULL",
        "ALTER TABLE breach ADD COLUMN tries INTEGER DEFAULT 0 NOT NULL",
        """CREATE INDEX breach_pending_of_lane ON breach (lane, id)
        WHERE state = 'pending'""",
        "CREATE INDEX revision_unpublished ON revision (id) WHERE published_at IS NULL",
        """CREATE INDEX breach_calibrated ON breach (vehicle_id, message_id)
        WHERE state = 'calibrated'""",
        "ALTER TABLE revision ADD COLUMN inputs BLOB",
        "DROP TRIGGER revision_is_not_updated",
        triggers.statements("sqlite", (triggers.REVISIONS,))[0],
    ),
}
_TRIGGERS_OF_NEW_TABLES: Final = {
    1: triggers.statements("sqlite", (triggers.PRIORS,)),
    2: triggers.statements("sqlite", (triggers.PROVISIONALS,)),
    3: triggers.statements("sqlite", (triggers.NOTES, triggers.STATEMENTS)),
}


def upgrade(connection: Connection, found: int) -> None:
    """From version `found` (OLDEST or later) to this software's own."""
    for version in range(found, SCHEMA_VERSION):
        for statement in _STEPS[version]:
            connection.exec_driver_sql(statement)
    METADATA.create_all(connection)
    for version in range(found, SCHEMA_VERSION):
        for trigger in _TRIGGERS_OF_NEW_TABLES[version]:
            connection.exec_driver_sql(trigger)
    lanes.fill(connection)
    connection.execute(text("UPDATE schema_version SET version = :now"), {"now": SCHEMA_VERSION})
