"""Samples of a recorded drive: a CSV table (plain or gzip) or a Parquet file, at a chosen pace.

Must never stop for a bad row, nor need a library on the vehicle that only Parquet needs.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from common.manifest import Manifest
from edge_agent.config import Source
from edge_agent.errors import ExtraMissingError, SourceError
from edge_agent.samples import Sample
from edge_agent.sources.items import SHOWN_CHARACTERS, BadRow, Item, signal_names, to_sample

ENCODING: Final = "utf-8-sig"  # spreadsheets write a byte order mark
PARQUET_ROWS: Final = 4096
# A car that stood still this long makes nobody wait for it.
LONGEST_WAIT_S: Final = 300.0


def read_file(
    path: Path, columns: Source, manifest: Manifest, vehicle_id: str, extra: Iterable[str] = ()
) -> Iterator[Item]:
    """Samples of one vehicle from a table. Raises SourceError when there is no such table."""
    wanted = tuple(extra)
    rows = _parquet_rows if path.suffix == ".parquet" else _csv_rows
    for row in rows(
        path, columns, [manifest.target.name, *signal_names(manifest, columns, wanted)]
    ):
        named = row.get(columns.vehicle_id)
        if named == "":
            yield BadRow(str(row)[:SHOWN_CHARACTERS], f"{columns.vehicle_id} is empty")
        elif named in {None, vehicle_id}:
            yield to_sample(row, columns, manifest, wanted)


def paced(
    items: Iterable[Item],
    speed: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], object],
) -> Iterator[Item]:
    """Each sample when its time comes, `speed` times faster than it was recorded; 0: at once.

    A longer pause than LONGEST_WAIT_S, and a clock that ran backwards, is not waited for.
    """
    recorded_s: float | None = None
    due_s = monotonic()
    for item in items:
        if speed > 0 and isinstance(item, Sample):
            step_s = 0.0 if recorded_s is None else item.time_s - recorded_s
            recorded_s = item.time_s
            due_s += step_s / speed if 0.0 <= step_s <= LONGEST_WAIT_S else 0.0
            sleep(max(due_s - monotonic(), 0.0))
        yield item


def _csv_rows(path: Path, columns: Source, signals: list[str]) -> Iterator[Mapping[str, Any]]:
    try:
        with _open_text(path) as file:
            reader = csv.DictReader(file)
            _check_columns(path, reader.fieldnames or [], columns, signals)
            yield from reader
    except (OSError, UnicodeDecodeError, EOFError, csv.Error, zlib.error) as error:
        raise SourceError(path, str(error)) from error


def _parquet_rows(path: Path, columns: Source, signals: list[str]) -> Iterator[Mapping[str, Any]]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ExtraMissingError(
            "A Parquet file", "pyarrow", "Install pyarrow, or give the table as CSV"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, columns, signals)
            for batch in file.iter_batches(PARQUET_ROWS):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise SourceError(path, str(error)) from error


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=ENCODING, errors="replace", newline="")
    return path.open(encoding=ENCODING, errors="replace", newline="")


def _check_columns(path: Path, found: Iterable[str], columns: Source, signals: list[str]) -> None:
    present = set(found)
    needed = [columns.time_s, columns.odometer, *signals]
    missing = [name for name in dict.fromkeys(needed) if name not in present]
    if missing:
        raise SourceError(
            path, f"it has no column {', '.join(missing)}; name other columns under [source]"
        )
