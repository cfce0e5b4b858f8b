"""What trips, breaches and verdicts change of their vehicle. Must never change anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloud.store.columns import VehicleColumns


@dataclass(slots=True)
class Totals:
    """As the columns of Vehicle; `cohort` is only read."""

    vehicle_id: str
    cohort: str
    bundle: str | None
    trips: int
    breaches: int
    calibrations: int
    failures: int
    odometer: float | None
    last_trip_error_v: float | None
    last_trip_received_at: float | None
    last_seen_at: float | None


TOTALS: Final = VehicleColumns(Totals, only_read={"cohort"})
