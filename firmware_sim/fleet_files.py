"""The files of a simulated fleet: what the BMS measures, and beside it, apart, the truth.

Writes a folder `trips.*`, `discharge_curves.*`, `dataset.json` and `truth/truth.*`, all or nothing.
Must never put a column of the truth into a file that edge or cloud read, and must never replace a
folder that something else wrote.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from firmware_sim.battery import FloatArray
from firmware_sim.errors import FolderOccupiedError, WriteFailedError
from firmware_sim.published_fleet import FleetData

IntArray = npt.NDArray[np.int64]

DATASET_FILE: Final = "dataset.json"
DATASET_KIND: Final = "firmware-sim published fleet"
FORMAT_VERSION: Final = 1
SOURCE: Final = (
    "figures of norm_route_generator.py, https://github.com/aws-samples/aws-do-pm, MIT-0"
)
# Enough for full row groups, little enough that text columns of a large fleet fit in memory.
VEHICLES_PER_BLOCK: Final = 20

TRIPS: Final = "trips"
DISCHARGE_CURVES: Final = "discharge_curves"
TRUTH: Final = "truth/truth"

COLUMNS: Final[dict[str, dict[str, str]]] = {
    TRIPS: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the trip, counted per vehicle",
        "started_at": "start of the trip, RFC 3339, UTC",
        "odometer_start_km": "km, at the start of the trip",
        "odometer_end_km": "km, at the end of the trip",
        "planned_distance_km": "km, what the trip was meant to be",
        "distance_km": "km, driven: as planned or until the battery was empty",
        "duration_s": "s, driven",
        "average_speed_m_s": "m/s",
        "load_kg": "kg",
        "rolling_friction": "scaler, 1 is the reference",
        "aerodynamic_drag": "scaler, 1 is the reference",
    },
    DISCHARGE_CURVES: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the trip, counted per vehicle",
        "time_s": "s, since the start of the trip",
        "unix_time_s": "s, Unix time",
        "odometer_km": "km",
        "distance_km": "km, since the start of the trip",
        "average_speed_m_s": "m/s, of the trip",
        "load_kg": "kg, of the trip",
        "voltage_v": "V, of one cell, as the BMS measures it",
    },
    TRUTH: {
        "vehicle_id": "name of the vehicle",
        "trip_id": "name of the trip, counted per vehicle",
        "degradation": "share of the battery lost at the start of the trip",
        "capacity_wh": "Wh, of one cell, end of the discharge curve",
        "usable_energy_wh": "Wh, of one cell, down to the cut-off voltage of 2.0 V",
        "state_of_health": "usable energy over that of a new cell",
        "range_km": "km, down to the cut-off at 40 mph and 10,000 lb",
    },
}

TEXT_COLUMNS: Final = frozenset({"vehicle_id", "trip_id", "started_at"})


class FileFormat(StrEnum):
    """How tables are written; the value is the file's suffix."""

    PARQUET = "parquet"
    CSV = "csv"


def write_fleet(
    fleet: FleetData,
    folder: Path,
    file_format: FileFormat = FileFormat.PARQUET,
    progress: Callable[[int], None] | None = None,
) -> tuple[Path, ...]:
    """Write the fleet to `folder`, all or nothing, and return the files.

    `progress` is told how many vehicles are written. An earlier fleet in `folder` is replaced.
    Raises `FolderOccupiedError` when anything else is there, `WriteFailedError` when the system
    refuses.
    """
    target = folder.absolute()
    require_free(target)
    try:
        names = _write_beside(fleet, target, file_format, progress)
    except OSError as cause:
        raise WriteFailedError(folder, cause) from cause
    return tuple(folder / name for name in names)


def require_free(folder: Path) -> None:
    """Raise `FolderOccupiedError` unless `folder` is absent, empty or an earlier fleet."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FolderOccupiedError(folder, "is a file")
    inside = {file.relative_to(folder).as_posix() for file in folder.rglob("*")}
    strangers = sorted(inside - _fleet_names(folder))
    if strangers:
        raise FolderOccupiedError(folder, f"holds {strangers[0]!r}")


def _fleet_names(folder: Path) -> set[str]:
    """Names that a fleet may have written into `folder`; none without its `dataset.json`."""
    try:
        kind = json.loads((folder / DATASET_FILE).read_bytes())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    if kind != DATASET_KIND:
        return set()
    tables = {f"{table}.{form}" for table in COLUMNS for form in FileFormat}
    return tables | {DATASET_FILE, Path(TRUTH).parent.name}


def _write_beside(
    fleet: FleetData,
    target: Path,
    file_format: FileFormat,
    progress: Callable[[int], None] | None,
) -> list[str]:
    """Write into a temporary neighbour of `target`, then put that in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}.", suffix=".partial", dir=target.parent
    ) as partial:
        made = Path(partial) / "new"
        made.mkdir()
        names = _write_all(fleet, made, file_format, progress)
        _put_in_place(made, target, Path(partial) / "old")
    return names


def _put_in_place(made: Path, target: Path, aside: Path) -> None:
    replaces = target.exists()
    if replaces:
        target.rename(aside)
    try:
        made.rename(target)
    except OSError:
        if replaces:
            aside.rename(target)
        raise


def _write_all(
    fleet: FleetData,
    folder: Path,
    file_format: FileFormat,
    progress: Callable[[int], None] | None,
) -> list[str]:
    (folder / TRUTH).parent.mkdir()
    names = {table: f"{table}.{file_format}" for table in TABLES}
    with ExitStack() as stack:
        writers = {
            table: stack.enter_context(_open(folder / name, table, file_format))
            for table, name in names.items()
        }
        for block in _blocks(fleet.settings.vehicles):
            for table, columns_of in TABLES.items():
                writers[table].write_table(pa.table(columns_of(fleet, block)))
            if progress is not None:
                progress(block.stop)
    (folder / DATASET_FILE).write_text(_description(fleet, names), encoding="utf-8")
    return [*names.values(), DATASET_FILE]


def _open(path: Path, table: str, file_format: FileFormat) -> AbstractContextManager[Any]:
    """A writer of tables with the columns of `table`, closed by its `with`."""
    schema = pa.schema([(name, _type_of(name)) for name in COLUMNS[table]])
    if file_format is FileFormat.CSV:
        plain = pa_csv.WriteOptions(quoting_style="none")
        writer = pa_csv.CSVWriter(str(path), schema, write_options=plain)
    else:
        writer = pa_parquet.ParquetWriter(str(path), schema, compression="zstd")
    return cast("AbstractContextManager[Any]", writer)


def _type_of(column: str) -> Any:
    return pa.string() if column in TEXT_COLUMNS else pa.float64()


def _blocks(vehicles: int) -> Iterator[slice]:
    for start in range(0, vehicles, VEHICLES_PER_BLOCK):
        yield slice(start, min(start + VEHICLES_PER_BLOCK, vehicles))


def _trips(fleet: FleetData, rows: slice) -> dict[str, Any]:
    trips = fleet.trips
    own = {
        name: getattr(trips, name)[rows].ravel() for name in COLUMNS[TRIPS] if hasattr(trips, name)
    }
    made = {
        **_names(fleet, rows, 1),
        "started_at": _text(trips.started_at_s[rows].ravel()),
        "odometer_end_km": own["odometer_start_km"] + own["distance_km"],
    }
    return _in_order(TRIPS, own | made)


def _discharge_curves(fleet: FleetData, rows: slice) -> dict[str, Any]:
    trips, samples = fleet.trips, fleet.samples
    per_trip = fleet.settings.samples_per_trip
    odometer_km = trips.odometer_start_km[rows, :, None] + samples.distance_km[rows]
    columns = {
        **_names(fleet, rows, per_trip),
        "time_s": samples.time_s[rows].ravel(),
        "unix_time_s": (trips.started_at_s[rows, :, None] + samples.time_s[rows]).ravel(),
        "odometer_km": odometer_km.ravel(),
        "distance_km": samples.distance_km[rows].ravel(),
        "average_speed_m_s": np.repeat(trips.average_speed_m_s[rows].ravel(), per_trip),
        "load_kg": np.repeat(trips.load_kg[rows].ravel(), per_trip),
        "voltage_v": samples.voltage_v[rows].ravel(),
    }
    return _in_order(DISCHARGE_CURVES, columns)


def _truth(fleet: FleetData, rows: slice) -> dict[str, Any]:
    truth = fleet.truth
    own = {
        name: getattr(truth, name)[rows].ravel() for name in COLUMNS[TRUTH] if hasattr(truth, name)
    }
    return _in_order(TRUTH, own | _names(fleet, rows, 1))


TABLES: Final[dict[str, Callable[[FleetData, slice], dict[str, Any]]]] = {
    TRIPS: _trips,
    DISCHARGE_CURVES: _discharge_curves,
    TRUTH: _truth,
}


def _in_order(table: str, columns: dict[str, Any]) -> dict[str, Any]:
    return {name: columns[name] for name in COLUMNS[table]}


def _names(fleet: FleetData, rows: slice, repeats: int) -> dict[str, Any]:
    """The id columns of a block of vehicles whose every trip has `repeats` rows."""
    vehicle_ids, trip_ids = fleet.vehicle_ids[rows], fleet.trip_ids
    vehicle = np.repeat(np.arange(len(vehicle_ids)), len(trip_ids) * repeats)
    trip = np.tile(np.repeat(np.arange(len(trip_ids)), repeats), len(vehicle_ids))
    return {"vehicle_id": _chosen(vehicle, vehicle_ids), "trip_id": _chosen(trip, trip_ids)}


def _chosen(index: IntArray, texts: Sequence[str]) -> Any:
    """`texts[index]` as an Arrow column; a million Python strings would take seconds."""
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(texts)).cast(pa.string())


def _text(unix_s: FloatArray) -> Any:
    moments, index = np.unique(unix_s, return_inverse=True)
    texts = [f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}" for moment in moments]
    return _chosen(index, texts)


def _description(fleet: FleetData, names: dict[str, str]) -> str:
    """How the fleet was made and what its columns mean; undated: same seed, same bytes."""
    description = {
        "kind": DATASET_KIND,
        "format_version": FORMAT_VERSION,
        "source": SOURCE,
        "settings": asdict(fleet.settings),
        "tables": {name: COLUMNS[table] for table, name in names.items()},
        "truth": "truth/ holds what no vehicle can measure; edge and cloud never read it",
    }
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"
