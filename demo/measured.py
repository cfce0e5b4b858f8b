"""Read the measured data: cells cycled from new to dead, and a car's trips through the seasons.

Pure but for reading. A cycle plays the part of a trip, a cell that of a vehicle. Must never fill a
gap, and never show the agent more than the columns that a manifest can name.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from common.errors import TwinError
from demo.vehicles import TripData, VehicleData

FloatArray = npt.NDArray[np.float64]

CELL_EMPTY_V = 2.72  # a discharge that reaches 2.7 V is complete
NEW_CYCLES = 8
REST_S = 3600.0
CAR = "bmw-i3"
MIN_ROWS = 10


class MeasuredDataError(TwinError):
    """A folder of measured data lacks a file or a column."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(f"{path} cannot be used: {problem}. See demo/data/README.md.")


def read_cells(folder: Path) -> list[VehicleData]:
    """Every `<cell>.csv.gz` of the folder as a vehicle. Raises MeasuredDataError."""
    files = sorted(folder.glob("*.csv.gz"))
    if not files:
        raise MeasuredDataError(folder, "it holds no <cell>.csv.gz")
    return [_cell(path) for path in files]


def read_car(folder: Path) -> tuple[VehicleData, dict[str, float]]:
    """The car's trips by start time, and the ambient temperature of each (°C)."""
    samples = _table(
        folder / "samples.csv.gz",
        [
            "trip_id",
            "time_s",
            "battery_voltage_v",
            "battery_current_a",
            "soc_percent",
            "distance_km",
        ],
    )
    trips = _table(folder / "trips.csv", ["trip_id", "ambient_temperature_c", "distance_km"])
    by_trip = dict(list(samples.groupby("trip_id", sort=False)))
    odometer_km, started_at = 0.0, 0.0
    found = []
    for trip_id in trips["trip_id"]:
        rows = by_trip.get(trip_id)
        if rows is None or len(rows) < MIN_ROWS:
            continue
        found.append(_car_trip(str(trip_id), rows, odometer_km, started_at))
        odometer_km = float(found[-1].odometer[-1])
        started_at = float(found[-1].time_s[-1]) + REST_S
    if not found:
        raise MeasuredDataError(folder, f"it has no trip of {MIN_ROWS} rows or more")
    ambient = dict(zip(trips["trip_id"], trips["ambient_temperature_c"], strict=True))
    return VehicleData(CAR, found), ambient


def write_table(vehicles: list[VehicleData], path: Path, target: str) -> None:
    """The trips as one table that `twin-cloud train` reads."""
    frames = [
        pd.DataFrame(
            {
                "vehicle_id": vehicle.vehicle_id,
                "trip_id": trip.trip_id,
                "time_s": trip.time_s - trip.time_s[0],
                "odometer": trip.odometer,
                **trip.signals,
                target: trip.voltage_v,
            }
        )
        for vehicle in vehicles
        for trip in vehicle.trips
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames).to_csv(path, index=False)


def _cell(path: Path) -> VehicleData:
    columns = ["cycle", "throughput_before_ah", "time_s", "discharged_ah", "current_a", "voltage_v"]
    rows = _table(path, columns)
    if rows["cycle"].isna().any():
        raise MeasuredDataError(path, "its column cycle has empty cells")
    name = path.name.removesuffix(".csv.gz")
    trips, started_at = [], 0.0
    for cycle, group in rows.groupby("cycle", sort=True):
        if len(group) >= MIN_ROWS:
            trips.append(_cycle(f"C{int(str(cycle)):04d}", group, started_at))
            started_at = float(trips[-1].time_s[-1]) + REST_S
    if not trips:
        raise MeasuredDataError(path, f"it has no cycle of {MIN_ROWS} rows or more")
    capacity = {
        trip.trip_id: float(trip.signals["discharged_ah"].max())
        for trip in trips
        if trip.voltage_v[-1] <= CELL_EMPTY_V
    }
    whole = [capacity[t.trip_id] for t in trips[:NEW_CYCLES] if t.trip_id in capacity]
    truth = {name: ah / float(np.mean(whole)) for name, ah in capacity.items()} if whole else {}
    return VehicleData(name, trips, truth)


def _cycle(trip_id: str, group: pd.DataFrame, started_at: float) -> TripData:
    discharged_ah = _column(group, "discharged_ah")
    return TripData(
        trip_id=trip_id,
        time_s=started_at + _column(group, "time_s"),
        odometer=_column(group, "throughput_before_ah") + discharged_ah,
        signals={"discharged_ah": discharged_ah, "current_a": _column(group, "current_a")},
        voltage_v=_column(group, "voltage_v"),
    )


def _car_trip(trip_id: str, rows: pd.DataFrame, odometer_km: float, started_at: float) -> TripData:
    return TripData(
        trip_id=trip_id,
        time_s=started_at + _column(rows, "time_s"),
        odometer=odometer_km + _column(rows, "distance_km"),
        signals={
            "battery_current_a": _column(rows, "battery_current_a"),
            "soc_percent": _column(rows, "soc_percent"),
        },
        voltage_v=_column(rows, "battery_voltage_v"),
    )


def _table(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise MeasuredDataError(path, " ".join(str(error).split())) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise MeasuredDataError(path, f"it has no column {', '.join(missing)}")
    if table.empty:
        raise MeasuredDataError(path, "it has no rows")
    for name in set(columns) - {"trip_id"}:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise MeasuredDataError(path, f"its column {name} holds something else than numbers")
    return table


def _column(rows: pd.DataFrame, name: str) -> FloatArray:
    values: FloatArray = rows[name].to_numpy(dtype=np.float64)
    return values
