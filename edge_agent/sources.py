"""Where samples come from: a CSV file (plain or gzip), or JSON lines on standard input.

A source yields samples and refused rows alike, so that nothing disappears between file and counter.
Must never stop for a bad row.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from common.manifest import Manifest
from edge_agent.config import Source
from edge_agent.errors import SourceError
from edge_agent.samples import Sample

ENCODING = "utf-8-sig"  # spreadsheets write a byte order mark
IGNITION = {
    **dict.fromkeys(("1", "1.0", "true", "on", "yes"), True),
    **dict.fromkeys(("0", "0.0", "false", "off", "no"), False),
}


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no sample, with its text and why."""

    text: str
    reason: str


Item = Sample | BadRow


def read_file(path: Path, columns: Source, manifest: Manifest, vehicle_id: str) -> Iterator[Item]:
    """Samples of one vehicle from a CSV table. Raises SourceError when there is no such table."""
    try:
        with _open_text(path) as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or [], columns, manifest)
            for row in reader:
                named = row.get(columns.vehicle_id)
                if named == "":
                    yield BadRow(str(row)[:1000], f"{columns.vehicle_id} is empty")
                elif named in {None, vehicle_id}:
                    yield to_sample(row, columns, manifest)
    except (OSError, UnicodeDecodeError, EOFError, csv.Error, zlib.error) as error:
        raise SourceError(path, str(error)) from error


def read_json_lines(lines: Iterable[str], columns: Source, manifest: Manifest) -> Iterator[Item]:
    """Samples from one JSON object a line."""
    for line in lines:
        text = line.strip()
        if text:
            yield _from_json(text, columns, manifest)


def to_sample(row: Mapping[str, Any], columns: Source, manifest: Manifest) -> Item:
    """One row of named values; empty cells are missing signals, not zeros."""
    try:
        numbers = {
            name: float(row[name])
            for name in signal_names(manifest)
            if row.get(name) not in {None, ""}
        }
        return Sample(
            time_s=float(row[columns.time_s]),
            odometer=float(row[columns.odometer]),
            signals=numbers,
            voltage_v=float(row[manifest.target.name]),
            trip_id=_optional_text(row.get(columns.trip_id)),
            ignition=_optional_bool(row.get(columns.ignition)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return BadRow(str(dict(row))[:1000], f"{type(error).__name__}: {error}")


def signal_names(manifest: Manifest) -> list[str]:
    """The signals that the bundle needs from the car, derived features replaced by their source."""
    names = [f.moving_average.signal if f.moving_average else f.name for f in manifest.features]
    return list(dict.fromkeys(names))


def _from_json(text: str, columns: Source, manifest: Manifest) -> Item:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRow(text[:1000], f"no JSON: {error}")
    if not isinstance(row, dict):
        return BadRow(text[:1000], "no JSON object")
    return to_sample(row, columns, manifest)


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=ENCODING, errors="replace", newline="")
    return path.open(encoding=ENCODING, errors="replace", newline="")


def _check_columns(path: Path, found: Iterable[str], columns: Source, manifest: Manifest) -> None:
    needed = [columns.time_s, columns.odometer, manifest.target.name, *signal_names(manifest)]
    missing = [name for name in needed if name not in set(found)]
    if missing:
        raise SourceError(
            path, f"it has no column {', '.join(missing)}; name other columns under [source]"
        )


def _optional_text(value: object) -> str | None:
    return None if value in {None, ""} else str(value)


def _optional_bool(value: object) -> bool | None:
    return None if value in {None, ""} else IGNITION[str(value).lower()]
