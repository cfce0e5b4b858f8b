"""Breaches with their traces as the bytes of one Parquet file, and back: pure.

The columns are typed, for whoever analyses them; and the JSON that a vehicle sent comes back byte
for byte. Where the columns would not give it exactly, the row holds the bytes themselves. The same
breaches are the same file. Must never give a trace that is not the one that was put in.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cloud.store.tables import Breach
from common.messages import Trace

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX: Final = ".parquet"
_OWN: Final = ("vehicle_id", "message_id", "trip_id", "bundle", "revision", "odometer")


def month_of(at: float) -> str:
    """Of UTC, such as 2026-11."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m")


def name_of(month: str, content: bytes) -> str:
    """Below the archive: partitioned as Hive does, then named by what is in it."""
    return f"month={month}/{hashlib.sha256(content).hexdigest()}{SUFFIX}"


def is_whole(name: str, content: bytes) -> bool:
    """Whether the bytes are those that the name was made of."""
    return name.endswith(f"/{hashlib.sha256(content).hexdigest()}{SUFFIX}")


def write(breaches: Sequence[Breach]) -> bytes:
    """One row a breach, by vehicle and message; in whatever order they come."""
    import pyarrow as pa  # noqa: PLC0415  # large, and only for whoever has an archive
    from pyarrow import parquet  # noqa: PLC0415

    ordered = sorted(breaches, key=lambda breach: (breach.vehicle_id, breach.message_id))
    table = pa.Table.from_pylist([_row(breach) for breach in ordered], schema=_schema())
    file = io.BytesIO()
    parquet.write_table(table, file, compression="zstd")
    return file.getvalue()


def read(content: bytes) -> pa.Table:
    """Raises pyarrow.ArrowException."""
    from pyarrow import parquet  # noqa: PLC0415

    return parquet.read_table(io.BytesIO(content), schema=_schema())


def traces(table: pa.Table) -> dict[tuple[str, str], int]:
    """The row of each breach, by vehicle and message."""
    ids = (table.column(name).to_pylist() for name in ("vehicle_id", "message_id"))
    return {key: row for row, key in enumerate(zip(*ids, strict=True))}


def trace_in(table: pa.Table, row: int) -> bytes:
    """The JSON of one row's trace."""
    [found] = table.slice(row, 1).to_pylist()
    exact: bytes | None = found["json"]
    return exact if exact is not None else _json(found)


def _row(breach: Breach) -> dict[str, Any]:
    own = {name: getattr(breach, name) for name in _OWN}
    own["received_at"] = datetime.fromtimestamp(breach.received_at, UTC)
    columns = _columns(breach.trace)
    if columns is None or _json(columns) != breach.trace:
        return own | (columns or {}) | {"json": breach.trace}
    return own | columns


def _columns(trace: bytes) -> dict[str, Any] | None:
    """None where it is no trace at all."""
    try:
        decoded = msgspec.json.decode(trace, type=Trace)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    columns = {name: getattr(decoded, name) for name in Trace.__struct_fields__}
    columns["features"] = [
        [column] if isinstance(column, float) else column for column in decoded.features
    ]
    return columns


def _json(columns: dict[str, Any]) -> bytes:
    """A feature of one value was the same all along: the wire has it without brackets."""
    fields = {name: columns[name] for name in Trace.__struct_fields__}
    fields["features"] = [
        column[0] if len(column) == 1 else column for column in columns["features"]
    ]
    return msgspec.json.encode(Trace(**fields))


@cache
def _schema() -> pa.Schema:
    import pyarrow as pa  # noqa: PLC0415

    numbers = pa.list_(pa.float64())
    return pa.schema(
        [
            *((name, pa.string()) for name in _OWN[:4]),
            ("revision", pa.int64()),
            ("odometer", pa.float64()),
            ("received_at", pa.timestamp("us", tz="UTC")),
            ("time_s", numbers),
            ("features", pa.list_(numbers)),
            ("voltage_v", numbers),
            ("worst", pa.list_(pa.int32())),
            ("within_v", pa.float64()),
            ("error_v", pa.float64()),
            ("json", pa.binary()),
        ]
    )
