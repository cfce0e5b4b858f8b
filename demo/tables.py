"""The machine-readable files of a run: trips.csv and report.json.

Must never round: what is read back is what the run measured.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from demo.results import RunResults, TripRow

REPORT_SCHEMA = 1
_HEALTH = ("health", "health_std", "health_low", "health_high", "health_truth")


def write_trips_csv(path: Path, trips: Sequence[TripRow], *, odometer_unit: str = "km") -> None:
    """One line per trip, in the given order; true/false, volts, and empty where unknown.

    The health columns are there when any trip has one of them. `odometer_unit` is the manifest's;
    it names the column, as in `odometer_km`. Raises OSError.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        with_health = any(getattr(row, name) is not None for row in trips for name in _HEALTH)
        names = _HEALTH if with_health else ()
        writer.writerow([*_trip_columns(odometer_unit), *names])
        for row in trips:
            writer.writerow([*_trip_cells(row), *(_cell(getattr(row, name)) for name in names)])


def _trip_columns(odometer_unit: str) -> list[str]:
    odometer = f"odometer_{odometer_unit}"
    errors = ["error_frozen_v", "error_v"]
    return ["vehicle_id", "trip", odometer, *errors, "breach", "revision", "updated"]


def _trip_cells(row: TripRow) -> list[str]:
    numbers = (row.odometer, row.error_frozen_v, row.error_v)
    verdicts = (str(row.breach).lower(), str(row.revision), str(row.updated).lower())
    return [row.vehicle_id, row.trip_id, *map(_cell, numbers), *verdicts]


def _cell(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def write_report_json(path: Path, results: RunResults, figures: Mapping[str, object]) -> None:
    """The run in JSON: summary, `figures` (numbers, by name), model and revisions.

    A number that is not finite becomes null. Raises OSError.
    """
    manifest = results.manifest
    content = {
        "schema": REPORT_SCHEMA,
        "title": results.title,
        "subtitle": results.subtitle,
        "summary": dict(results.summary),
        "figures": dict(figures),
        "model": {
            "name": manifest.name,
            "model_sha256": manifest.model_sha256,
            "features": manifest.features,
            "target": manifest.target,
            "parameters": manifest.parameters,
            "error_threshold_v": manifest.error_threshold_v,
            "odometer_unit": manifest.odometer_unit,
            "sensitivity": manifest.sensitivity,
        },
        "trips": len(results.trips),
        "revisions": results.revisions,
        "sources": results.sources,
    }
    raw = msgspec.json.encode(content, enc_hook=_plain)
    path.write_bytes(msgspec.json.format(raw, indent=2) + b"\n")


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise NotImplementedError
