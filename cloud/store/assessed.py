"""What a round of calibrations reads and changes of a vehicle. Must never change anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloud.store.columns import VehicleColumns
from common.estimate_state import State


@dataclass(slots=True)
class Assessed:
    """As the columns of Vehicle; those before `calibrations` are only read."""

    vehicle_id: str
    cohort: str
    trips: int
    odometer: float | None
    last_trip_received_at: float | None
    calibrations: int
    failures: int
    started: bool
    estimate_state: State
    soh: float | None
    soh_std: float | None
    drift: float | None
    figures_revision: int | None
    relative_std: float | None
    error_left: float | None


ASSESSED: Final = VehicleColumns(
    Assessed, only_read={"cohort", "trips", "odometer", "last_trip_received_at"}
)
