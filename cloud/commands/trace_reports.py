"""What the command line does and shows of traces.

Must never write, but by the keeper that the service has, too.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import msgspec

from cloud.commands.reports import show
from cloud.config import load_config
from cloud.store import revisions
from cloud.store import traces as kept
from cloud.store.database import Reader, Store
from cloud.traces.archive import archive_of
from cloud.traces.keeper import keeper_of
from cloud.traces.reading import trace_of
from common.messages import Trace, message_id


def archive(config: Path, *, as_json: bool) -> bool:
    """Turn until nothing is left; False: there is no archive.

    Raises StoreError, StoreUnavailableError, TraceArchiveError, TraceFileError.
    """
    settings = load_config(config)
    if settings.traces.archive is None:
        return False
    done = {"files": 0, "released": 0, "removed_files": 0}
    with closing(Store(settings.database())) as store:
        keeper, is_more = keeper_of(settings, store, time.time), True
        while is_more:
            turned = keeper.turn()
            is_more = turned.is_more
            for name in done:
                done[name] += getattr(turned, name)
    show([done], list(done), as_json=as_json)
    return True


def status(config: Path, *, as_json: bool) -> None:
    """One row for the database, one a month of the archive. Raises StoreError."""
    with closing(Reader(load_config(config).database())) as reader, reader.read() as db:
        count, size = kept.in_database(db)
        months = kept.months(db)
    rows: list[dict[str, object]] = [{"where": "database", "breaches": count, "trace_bytes": size}]
    rows += [
        {"where": "archive" if month.is_kept else "removed", **asdict(month)} for month in months
    ]
    columns = ["where", "month", "files", "breaches", "trace_bytes", "file_bytes"]
    show(({name: row.get(name) for name in columns} for row in rows), columns, as_json=as_json)


def fetch(config: Path, vehicle_id: str, trip_id: str, *, as_json: bool) -> bool:
    """Print it; False: there is no such breach.

    Raises StoreError, TraceGoneError, TraceArchiveError, TraceFileError.
    """
    settings = load_config(config)
    with closing(Reader(settings.database())) as reader, reader.read() as db:
        found = revisions.breaches_of(db, vehicle_id, [message_id(vehicle_id, trip_id, "breach")])
        if not found:
            return False
        sent = trace_of(db, archive_of(settings), found[0])
    if as_json:
        sys.stdout.write(sent.decode() + "\n")
        return True
    trace = msgspec.json.decode(sent, type=Trace)
    points = range(len(trace.time_s))
    features = [
        [column] * len(points) if isinstance(column, float) else column for column in trace.features
    ]
    rows = [
        {"time_s": trace.time_s[i], "voltage_v": trace.voltage_v[i]}
        | {f"feature_{number}": column[i] for number, column in enumerate(features, 1)}
        for i in points
    ]
    show(rows, list(rows[0]), as_json=False)
    return True
