"""A service whose breaches are old, and an archive for their traces."""

from __future__ import annotations

from pathlib import Path

from sqlmodel import select

from cloud.config import Traces
from cloud.store.tables import Breach
from cloud.traces.archive import Archive
from cloud.traces.keeper import TraceKeeper
from cloud.traces.places import Place, place_at
from tests.cloud_doubles import Insides

DAY_S = 86400.0
WANTED = Traces(archive="archive", keep_days_in_database=30, keep_days=365)


def keeper(inside: Insides, place: Place | Path, wanted: Traces = WANTED) -> TraceKeeper:
    """With nothing in memory."""
    found = place_at(str(place)) if isinstance(place, Path) else place
    return TraceKeeper(inside.store, Archive(found), wanted, lambda: inside.now)


def turned(keeper: TraceKeeper) -> int:
    """Turns until nothing is left; how many traces left the database."""
    released = 0
    while True:
        done = keeper.turn()
        released += done.released
        if not done.is_more:
            return released


def breaches(inside: Insides) -> dict[str, Breach]:
    """By message id."""
    with inside.store.read() as db:
        return {row.message_id: row for row in db.exec(select(Breach))}


def files(folder: Path) -> list[Path]:
    """Everything that lies in an archive."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
