"""Read what the cloud recorded of a run: trips and revisions, straight from its database.

Must never write: the database is opened read-only.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.calibration import Estimate, estimate_of, prior
from common.manifest import Manifest
from common.revision import Revision, decode_revision


@dataclass(frozen=True)
class RecordedTrip:
    """One trip as the vehicle reported it."""

    vehicle_id: str
    trip_id: str
    revision: int
    odometer: float
    samples: int
    error_v: float
    coverage95: float
    breach: bool


@dataclass(frozen=True)
class RecordedRevision:
    """One revision with the vehicle's verdict."""

    revision: Revision
    verdict: str


@dataclass(frozen=True)
class History:
    """Trips and revisions of all vehicles, each in order."""

    trips: list[RecordedTrip]
    revisions: list[RecordedRevision]

    def estimates(self, vehicle_id: str, manifest: Manifest) -> dict[int, Estimate]:
        """The estimate of each revision number of one vehicle; 0 is the manifest's prior."""
        found = {0: prior(manifest)}
        for recorded in self.revisions:
            if recorded.revision.vehicle_id == vehicle_id:
                found[recorded.revision.number] = estimate_of(recorded.revision)
        return found


def read_history(database: Path) -> History:
    """Everything that the cloud recorded."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as db:
        trips = db.execute(
            "SELECT vehicle_id, trip_id, revision, odometer_start, samples, error_v, coverage95, "
            "breach FROM trip ORDER BY vehicle_id, odometer_start, id"
        ).fetchall()
        revisions = db.execute(
            "SELECT content, verdict FROM revision ORDER BY vehicle_id, number"
        ).fetchall()
    return History(
        trips=[_recorded_trip(*row) for row in trips],
        revisions=[
            RecordedRevision(decode_revision(content), verdict or "none")
            for content, verdict in revisions
        ],
    )


def _recorded_trip(*row: Any) -> RecordedTrip:
    trip = RecordedTrip(*row)
    return replace(trip, breach=bool(trip.breach))  # SQLite knows no booleans
