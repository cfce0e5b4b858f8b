"""Version 4, not released yet: cohorts, lanes, figures to sort by, events, API keys."""

from __future__ import annotations

from typing import Final

from alembic import op

from cloud.store import lanes, triggers
from cloud.store.metadata import METADATA
from cloud.store.migrations.statements import run
from common.revision import GENESIS

revision = "4"
down_revision = "3"

STATEMENTS: Final = (
    "DROP TABLE IF EXISTS schema_version",
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
    "CREATE INDEX breach_by_odometer ON breach (vehicle_id, odometer, id)",
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
    """CREATE INDEX release_unheard ON release (vehicle_id, number)
    WHERE number IS NOT NULL AND state IS NULL""",
    "ALTER TABLE revision ADD COLUMN inputs BLOB",
    f"ALTER TABLE revision ADD COLUMN parent_hash VARCHAR DEFAULT '{GENESIS}' NOT NULL",
    """UPDATE revision SET parent_hash = parent.hash FROM (
        SELECT id, lag(hash) OVER (PARTITION BY vehicle_id ORDER BY number) AS hash FROM revision
    ) AS parent WHERE parent.id = revision.id AND parent.hash IS NOT NULL""",
    "ALTER TABLE revision ADD COLUMN approval VARCHAR",
    "ALTER TABLE revision ADD COLUMN approval_by VARCHAR",
    "ALTER TABLE revision ADD COLUMN approval_at FLOAT",
    "ALTER TABLE revision ADD COLUMN approval_why VARCHAR",
    "ALTER TABLE bundle_files ADD COLUMN added_by VARCHAR",
    "ALTER TABLE bundle_files ADD COLUMN why VARCHAR",
    "CREATE INDEX battery_order_by_time ON battery_order (ordered_at, id)",
    "CREATE INDEX roll_back_order_by_time ON roll_back_order (ordered_at, id)",
    "CREATE INDEX revision_to_approve ON revision (id) WHERE approval = 'pending'",
    "ALTER TABLE breach ADD COLUMN archived_in VARCHAR",
    """CREATE INDEX breach_to_archive ON breach (received_at, id)
    WHERE archived_in IS NULL AND state <> 'pending'""",
)


def upgrade() -> None:
    """From version 3. Tables that are missing are made, until this version is released."""
    connection = op.get_bind()
    run(connection, STATEMENTS)
    METADATA.create_all(connection)
    triggers.replace(connection, triggers.REVISIONS)
    triggers.create(connection, (triggers.NOTES, triggers.STATEMENTS, triggers.POLICIES))
    triggers.order_events(connection)
    lanes.fill(connection)
