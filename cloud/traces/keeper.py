"""Move the traces of settled breaches to the archive when they are old, and remove old months.

A file is announced in the database, written, read again and compared; only then do rows let go of
their traces, in transactions of their own. Ended anywhere in between, the next turn goes on from
the announced file: it is there and whole, or it is forgotten and made again, the same to the last
byte.
Must never let a row name a file that it has not read.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cloud.config import Config, Traces
from cloud.errors import StoreUnavailableError, TraceArchiveError, TraceFileError
from cloud.mileage import DAY_S
from cloud.store import events, traces
from cloud.store.database import Store
from cloud.store.tables import Breach
from cloud.store.trace_tables import TraceFile
from cloud.traces import parquet
from cloud.traces.archive import Archive, archive_of

log = logging.getLogger(__name__)

AT_ONCE: Final = 500
"""Breaches of a file: what is in memory at one time."""
RELEASED_AT_ONCE: Final = 100
"""Vehicles that are locked at one time: messages of theirs wait for so long."""
FILES_A_TURN: Final = 200
EVERY_S: Final = 600.0


@dataclass(frozen=True)
class Turned:
    """What a turn did, and whether there is more to do."""

    files: int = 0
    released: int = 0
    removed_files: int = 0
    is_more: bool = False


class TraceKeeper:
    """Of a store; one thread only. Several processes at once do no harm, and no good."""

    def __init__(
        self, store: Store, archive: Archive | None, wanted: Traces, clock: Callable[[], float]
    ) -> None:
        self._store, self._archive, self._wanted, self._clock = store, archive, wanted, clock

    def run(self, stop: threading.Event) -> None:
        """A turn now and then, until `stop` is set."""
        while not stop.wait(EVERY_S):
            self.guarded_turns(stop)

    def guarded_turns(self, stop: threading.Event) -> None:
        """What is due, up to FILES_A_TURN files; what goes wrong waits for the next time."""
        try:
            for _ in range(FILES_A_TURN):
                if stop.is_set() or not self.turn().is_more:
                    return
        except (StoreUnavailableError, TraceArchiveError, TraceFileError) as error:
            log.error("traces_wait error=%r", str(error))  # noqa: TRY400  # it names the cause
        except Exception:
            log.exception("traces_failed")

    def turn(self) -> Turned:
        """One file in, or some files out.

        Raises StoreUnavailableError, TraceArchiveError, TraceFileError.
        """
        if self._archive is None:
            return Turned()
        with self._store.read() as db:
            begun = traces.unreleased(db)
        if begun is not None:
            return self._resumed(self._archive, begun)
        written = self._written(self._archive)
        if written is not None:
            return Turned(1, self._released(self._archive, written.name), is_more=True)
        return self._removed(self._archive)

    def _written(self, archive: Archive) -> TraceFile | None:
        """The next file, announced and written; None: nothing is due."""
        now = self._clock()
        with self._store.read() as db:
            found = traces.due(db, now - self._wanted.keep_days_in_database * DAY_S, AT_ONCE)
        if not found:
            return None
        month = parquet.month_of(found[0].received_at)
        breaches = [breach for breach in found if parquet.month_of(breach.received_at) == month]
        content = parquet.write(breaches)
        file = TraceFile(
            name=parquet.name_of(month, content),
            month=month,
            breaches=len(breaches),
            trace_bytes=sum(len(breach.trace) for breach in breaches),
            file_bytes=len(content),
            made_at=now,
        )
        archive.prepare()
        with self._store.write() as db:
            traces.announce(db, file)
        archive.put(file.name, content)
        return file

    def _resumed(self, archive: Archive, begun: TraceFile) -> Turned:
        """A file that is missing or damaged is made again, unless rows name it already."""
        try:
            problem = None if archive.has(begun.name) else TraceFileError(begun.name, "it is gone")
        except TraceFileError as error:
            problem = error
        if problem is None:
            return Turned(1, self._released(archive, begun.name), is_more=True)
        with self._store.write() as db:
            if not traces.forget(db, begun.name):
                raise problem
        return Turned(is_more=True)

    def _released(self, archive: Archive, name: str) -> int:
        keys = archive.keys(name)
        for start in range(0, len(keys), RELEASED_AT_ONCE):
            with self._store.write() as db:
                breaches = traces.releasable(db, name, keys[start : start + RELEASED_AT_ONCE])
                _compare(archive, name, breaches)
                traces.release(db, name, breaches)
        now = self._clock()
        with self._store.write() as db:
            count = traces.end_release(db, name, now)
            events.add(db, "traces.archived", now, detail={"file": name, "breaches": count})
        log.info("traces_archived file=%s breaches=%d", name, count)
        return count

    def _removed(self, archive: Archive) -> Turned:
        """Files of whole months that are kept no longer."""
        if self._wanted.keep_days is None:
            return Turned()
        now = self._clock()
        month = parquet.month_of(now - self._wanted.keep_days * DAY_S)
        with self._store.read() as db:
            files = traces.files_before(db, month, AT_ONCE)
        if not files:
            return Turned()
        for file in files:
            archive.remove(file.name)
        months = sorted({file.month for file in files})
        detail = {
            "months": months,
            "files": len(files),
            "breaches": sum(file.breaches for file in files),
        }
        with self._store.write() as db:
            traces.mark_removed(db, [file.name for file in files], now)
            events.add(db, "traces.removed", now, detail=detail)
        log.info("traces_removed months=%s files=%d", ",".join(months), len(files))
        return Turned(removed_files=len(files), is_more=len(files) == AT_ONCE)


def _compare(archive: Archive, name: str, breaches: Sequence[Breach]) -> None:
    for breach in breaches:
        if archive.trace(name, breach.vehicle_id, breach.message_id) != breach.trace:
            raise TraceFileError(name, f"the trace of breach {breach.message_id} came back changed")


def keeper_of(config: Config, store: Store, clock: Callable[[], float]) -> TraceKeeper:
    """As the configuration wants it."""
    return TraceKeeper(store, archive_of(config), config.traces, clock)
