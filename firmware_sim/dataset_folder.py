"""A folder of tables by a simulator: `trips.*`, `discharge_curves.*`, `dataset.json`, the truth.

All or nothing. Must never replace a folder that something else wrote, nor know what any column
means: a `Dataset` brings its own.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from firmware_sim.errors import FolderOccupiedError, WriteFailedError

DATASET_FILE: Final = "dataset.json"
FORMAT_VERSION: Final = 1
# What `dataset.json` says of itself; a folder of any of these may be replaced.
PUBLISHED: Final = "firmware-sim published fleet"
EQUIVALENT_CIRCUIT: Final = "firmware-sim equivalent-circuit fleet"
PYBAMM: Final = "firmware-sim pybamm cells"
KINDS: Final = frozenset({PUBLISHED, EQUIVALENT_CIRCUIT, PYBAMM})
# Enough for full row groups, little enough that text columns of a large fleet fit in memory.
VEHICLES_PER_BLOCK: Final = 20

TRIPS: Final = "trips"
DISCHARGE_CURVES: Final = "discharge_curves"
TRUTH: Final = "truth/truth"
TABLES: Final = (TRIPS, DISCHARGE_CURVES, TRUTH)
TEXT_COLUMNS: Final = frozenset({"vehicle_id", "trip_id", "started_at"})

ColumnsOf = Callable[[slice], dict[str, Any]]


class FileFormat(StrEnum):
    """How tables are written; the value is the file's suffix."""

    PARQUET = "parquet"
    CSV = "csv"


@dataclass(frozen=True)
class Dataset:
    """What to write: for each of TABLES the meaning of its columns, and its rows by vehicles.

    `kind` is one of KINDS; `columns_of[table](rows)` gives the columns of that slice of vehicles.
    """

    kind: str
    source: str
    settings: Mapping[str, Any]
    vehicles: int
    columns: Mapping[str, Mapping[str, str]]
    columns_of: Mapping[str, ColumnsOf]


def write_dataset(
    dataset: Dataset,
    folder: Path,
    file_format: FileFormat,
    progress: Callable[[int], None] | None = None,
) -> tuple[Path, ...]:
    """Write the tables to `folder`, all or nothing, and return the files.

    `progress` is told how many vehicles are written. An earlier dataset in `folder` is replaced.
    Raises `FolderOccupiedError` when anything else is there, `WriteFailedError` when the system
    refuses.
    """
    target = folder.absolute()
    require_free(target)
    try:
        names = _write_beside(dataset, target, file_format, progress)
    except OSError as cause:
        raise WriteFailedError(folder, cause) from cause
    return tuple(folder / name for name in names)


def require_free(folder: Path) -> None:
    """Raise `FolderOccupiedError` unless `folder` is absent, empty or an earlier dataset."""
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise FolderOccupiedError(folder, "is a file")
    inside = {file.relative_to(folder).as_posix() for file in folder.rglob("*")}
    strangers = sorted(inside - _own_names(folder))
    if strangers:
        raise FolderOccupiedError(folder, f"holds {strangers[0]!r}")


def _own_names(folder: Path) -> set[str]:
    """Names that a simulator may have written into `folder`; none without its `dataset.json`."""
    try:
        kind = json.loads((folder / DATASET_FILE).read_bytes())["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    if kind not in KINDS:
        return set()
    tables = {f"{table}.{form}" for table in TABLES for form in FileFormat}
    return tables | {DATASET_FILE, Path(TRUTH).parent.name}


def _write_beside(
    dataset: Dataset,
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
        names = _write_all(dataset, made, file_format, progress)
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
    dataset: Dataset,
    folder: Path,
    file_format: FileFormat,
    progress: Callable[[int], None] | None,
) -> list[str]:
    (folder / TRUTH).parent.mkdir()
    names = {table: f"{table}.{file_format}" for table in TABLES}
    with ExitStack() as stack:
        writers = {
            table: stack.enter_context(_open(folder / name, dataset.columns[table], file_format))
            for table, name in names.items()
        }
        for block in _blocks(dataset.vehicles):
            for table in TABLES:
                writers[table].write_table(pa.table(_rows(dataset, table, block)))
            if progress is not None:
                progress(block.stop)
    (folder / DATASET_FILE).write_text(_description(dataset, names), encoding="utf-8")
    return [*names.values(), DATASET_FILE]


def _open(
    path: Path, columns: Mapping[str, str], file_format: FileFormat
) -> AbstractContextManager[Any]:
    """A writer of tables with these columns, closed by its `with`."""
    schema = pa.schema([(name, _type_of(name)) for name in columns])
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


def _rows(dataset: Dataset, table: str, block: slice) -> dict[str, Any]:
    """The block's columns of one table, in the order in which they are described."""
    found = dataset.columns_of[table](block)
    return {name: found[name] for name in dataset.columns[table]}


def _description(dataset: Dataset, names: Mapping[str, str]) -> str:
    """How the data were made and what the columns mean; undated: same seed, same bytes."""
    description = {
        "kind": dataset.kind,
        "format_version": FORMAT_VERSION,
        "source": dataset.source,
        "settings": dict(dataset.settings),
        "tables": {name: dict(dataset.columns[table]) for table, name in names.items()},
        "truth": "truth/ holds what no vehicle can measure; edge and cloud never read it",
    }
    return json.dumps(description, indent=2, ensure_ascii=False) + "\n"
