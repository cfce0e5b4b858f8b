"""Read a CSV or Parquet table of trips and believe it only when it checks out.

Must never repair data in silence: a gap, a text or a missing column is an error that says where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from cloud.training.errors import OptionError, TableError
from common.manifest import MovingAverage

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

VEHICLE: Final = "vehicle_id"
TRIP: Final = "trip_id"
TIME: Final = "time_s"
MIN_ROWS: Final = 20
LARGEST_NUMBER: Final = 1e15  # of any unit; far below where float32 squares overflow
PARQUET_SUFFIXES: Final = (".parquet", ".pq")
CSV_SUFFIXES: Final = (".csv", ".csv.gz")


@dataclass(frozen=True)
class TableColumns:
    """Which columns to read: the features in order (moving averages are computed), the target."""

    features: tuple[str, ...]
    target: str
    moving_averages: Mapping[str, MovingAverage]

    @property
    def signals(self) -> tuple[str, ...]:
        """The columns behind the features, each once."""
        averages = self.moving_averages
        return tuple(
            dict.fromkeys(averages[f].signal if f in averages else f for f in self.features)
        )


@dataclass(frozen=True)
class TripChoice:
    """The first `count` trips of each vehicle, in the table's order; None for all of them."""

    count: int | None = 1


@dataclass(frozen=True, eq=False)
class TripTable:
    """The chosen trips: features [n, F], target [n]; `trip` [n] numbers the trips from 0.

    `vehicle_of_trip` [T] numbers the vehicle of each trip. `name` and `sha256` are the file's.
    """

    name: str
    sha256: str
    features: FloatArray
    target: FloatArray
    trip: IntArray
    vehicle_of_trip: IntArray

    @property
    def trips(self) -> int:
        """Number of trips."""
        return len(self.vehicle_of_trip)

    @property
    def vehicles(self) -> int:
        """Number of vehicles."""
        return len(np.unique(self.vehicle_of_trip))


def read_trips(path: Path, columns: TableColumns, choice: TripChoice) -> TripTable:
    """Read and check the chosen trips. Raises TableError with the column and the row at fault.

    `vehicle_id` and `trip_id` are optional (one vehicle, one trip); `time_s` is needed for moving
    averages only. Rows that are not chosen are not checked.
    """
    for name in (*columns.signals, columns.target):
        if name in {VEHICLE, TRIP}:
            raise OptionError("features", f"{name} tells rows apart", "Name measured columns only.")
    frame = _chosen(_read(path, columns), path, choice)
    if len(frame) < MIN_ROWS:
        remedy = f"Give at least {MIN_ROWS} rows, or choose more trips with --trips."
        raise TableError(path.name, f"{len(frame)} rows are too few", remedy)
    numbers = {
        name: _numbers(frame[name], path)
        for name in frame.columns
        if name not in {VEHICLE, TRIP, "_trip", "_vehicle"}
    }
    trip = frame["_trip"].to_numpy()
    first_rows = np.unique(trip, return_index=True)[1]
    return TripTable(
        name=path.name,
        sha256=_sha256(path),
        features=_features(numbers, columns, frame, path),
        target=numbers[columns.target],
        trip=np.unique(trip, return_inverse=True)[1].astype(np.intp),
        vehicle_of_trip=frame["_vehicle"].to_numpy()[first_rows],
    )


def moving_average(time_s: FloatArray, values: FloatArray, time_constant_s: float) -> FloatArray:
    """y += (1 − exp(−dt/τ)) · (x − y) along one trip, started at its first value; shape [m]."""
    gains = 1.0 - np.exp(-np.diff(time_s) / time_constant_s)
    y = float(values[0])
    averaged = [y]
    for gain, x in zip(gains.tolist(), values[1:].tolist(), strict=True):
        y += gain * (x - y)
        averaged.append(y)
    return np.array(averaged)


def _read(path: Path, columns: TableColumns) -> Any:
    needed = [*columns.signals, columns.target, *([TIME] if columns.moving_averages else [])]
    try:
        present = _header(path)
        _require_columns(path, needed, present)
        wanted = [n for n in dict.fromkeys([VEHICLE, TRIP, *needed]) if n in present]
        if _has_suffix(path, PARQUET_SUFFIXES):
            return pd.read_parquet(path, columns=wanted)
        return _read_csv(path)[wanted]
    except OSError as error:
        raise TableError(path, error.strerror or str(error), "Check the path.") from error
    except (ValueError, EOFError) as error:  # pandas' and pyarrow's parse errors are ValueErrors
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "Give a rectangular UTF-8 CSV with a header row, or a Parquet file."
        raise TableError(path.name, f"it does not parse ({first_line})", remedy) from error


def _read_csv(path: Path) -> Any:
    # All columns: told to read a few of them, pandas lets rows of another length pass in silence.
    frame = pd.read_csv(path, dtype={VEHICLE: str, TRIP: str})
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError("its rows are longer than its header")  # noqa: TRY004 - no type is wrong
    return frame


def _header(path: Path) -> list[str]:
    if _has_suffix(path, PARQUET_SUFFIXES):
        from pyarrow import parquet  # noqa: PLC0415 - only needed, and only imported, for Parquet

        return [str(name) for name in parquet.read_schema(path).names]
    if _has_suffix(path, CSV_SUFFIXES):
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    endings = ", ".join((*CSV_SUFFIXES, *PARQUET_SUFFIXES))
    remedy = f"Use a file that ends in {endings}."
    raise TableError(path.name, "its name tells no known format", remedy)


def _has_suffix(path: Path, suffixes: Sequence[str]) -> bool:
    return path.name.lower().endswith(tuple(suffixes))


def _require_columns(path: Path, needed: Sequence[str], present: Sequence[str]) -> None:
    for name in needed:
        if name not in present:
            remedy = f"It has {', '.join(present)}: correct --features, --target or the table."
            raise TableError(path.name, "the column is missing", remedy, column=name)


def _chosen(frame: Any, path: Path, choice: TripChoice) -> Any:
    """The rows of the chosen trips, trip by trip, with `_vehicle` and `_trip` numbers."""
    for name in (VEHICLE, TRIP):
        if name in frame.columns and frame[name].isna().any():
            row = int(frame[name].isna().to_numpy().argmax()) + 1
            raise TableError(path.name, "it is empty", "Fill the cell.", column=name, row=row)
    vehicle = _codes(frame, [VEHICLE])
    trip = _codes(frame, [VEHICLE, TRIP])
    frame = frame.assign(_vehicle=vehicle, _trip=trip)
    if choice.count is not None:
        heads = frame.drop_duplicates("_trip")
        order = heads.groupby("_vehicle").cumcount()
        frame = frame[frame["_trip"].isin(heads["_trip"][order < choice.count])]
    return frame.sort_values("_trip", kind="stable")


def _codes(frame: Any, names: Sequence[str]) -> IntArray:
    """A number for each combination of the columns that exist, in order of appearance."""
    existing = [name for name in names if name in frame.columns]
    if not existing:
        return np.zeros(len(frame), dtype=np.intp)
    codes: IntArray = frame.groupby(existing, sort=False).ngroup().to_numpy()
    return codes


def _numbers(column: Any, path: Path) -> FloatArray:
    """The column as finite floats. Raises TableError at the first cell that is none."""
    numbers: FloatArray = pd.to_numeric(column, errors="coerce").to_numpy(
        dtype=np.float64, na_value=np.nan
    )
    bad = ~(np.abs(numbers) <= LARGEST_NUMBER)  # also NaN
    if bad.any():
        at = int(bad.argmax())
        value = column.iloc[at]
        what = "an empty cell or NaN" if pd.isna(value) else f"{value!r}, no number to train on"
        raise TableError(
            path.name,
            f"it holds {what} (bad cells in this column: {int(bad.sum())})",
            "Fill or leave out such rows.",
            column=str(column.name),
            row=int(column.index[at]) + 1,
        )
    return numbers


def _features(
    numbers: Mapping[str, FloatArray],
    columns: TableColumns,
    frame: Any,
    path: Path,
) -> FloatArray:
    if columns.moving_averages:
        _require_monotone_time(numbers[TIME], frame, path)
    return np.column_stack([_feature(name, numbers, columns, frame) for name in columns.features])


def _feature(
    name: str,
    numbers: Mapping[str, FloatArray],
    columns: TableColumns,
    frame: Any,
) -> FloatArray:
    average = columns.moving_averages.get(name)
    if average is None:
        return numbers[name]
    starts = np.flatnonzero(np.diff(frame["_trip"].to_numpy())) + 1
    times, values = (np.split(numbers[column], starts) for column in (TIME, average.signal))
    return np.concatenate(
        [moving_average(t, x, average.time_constant_s) for t, x in zip(times, values, strict=True)]
    )


def _require_monotone_time(time_s: FloatArray, frame: Any, path: Path) -> None:
    same_trip = np.diff(frame["_trip"].to_numpy()) == 0
    backwards = same_trip & (np.diff(time_s) < 0)
    if backwards.any():
        row = int(frame.index[int(backwards.argmax()) + 1]) + 1
        problem = "time runs backwards within a trip"
        raise TableError(path.name, problem, "Sort each trip by time.", column=TIME, row=row)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
