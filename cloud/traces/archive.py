"""The files of the archive: put, checked, read again with a few of them in memory.

Must never believe a file whose bytes are not those that its name was made of.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from cloud.config import Config
from cloud.errors import TraceFileError
from cloud.traces import parquet
from cloud.traces.places import Place, place_at

if TYPE_CHECKING:
    import pyarrow as pa

FILES_IN_MEMORY: Final = 4
_File = tuple["pa.Table", dict[tuple[str, str], int]]


class Archive:
    """Of one place. Any thread."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()

    def prepare(self) -> None:
        """Be there, before the first file is announced. Raises TraceArchiveError."""
        self._place.prepare()

    def put(self, name: str, content: bytes) -> None:
        """Keep a file, and read it again. Raises TraceArchiveError, TraceFileError."""
        self._place.put(name, content)
        self._content(name)

    def has(self, name: str) -> bool:
        """Whether it is there. Raises TraceArchiveError, TraceFileError (and damaged)."""
        found = self._place.get(name)
        if found is not None:
            self._require_whole(name, found)
        return found is not None

    def trace(self, name: str, vehicle_id: str, message_id: str) -> bytes:
        """The JSON of a breach's trace. Raises TraceArchiveError, TraceFileError."""
        table, rows = self._file(name)
        row = rows.get((vehicle_id, message_id))
        if row is None:
            raise TraceFileError(self._place.where(name), f"breach {message_id} is not in it")
        return parquet.trace_in(table, row)

    def keys(self, name: str) -> list[tuple[str, str]]:
        """Vehicle and message of each breach in a file. Raises as `trace`."""
        return list(self._file(name)[1])

    def remove(self, name: str) -> None:
        """Keep a file no longer. Raises TraceArchiveError."""
        self._place.remove(name)
        with self._lock:
            self._files.pop(name, None)

    def _file(self, name: str) -> _File:
        with self._lock:
            known = self._files.get(name)
            if known is not None:
                self._files.move_to_end(name)
                return known
        table = self._table(name)
        read = (table, parquet.traces(table))
        with self._lock:
            self._files[name] = read
            while len(self._files) > FILES_IN_MEMORY:
                self._files.popitem(last=False)
        return read

    def _table(self, name: str) -> pa.Table:
        import pyarrow as pa  # noqa: PLC0415  # large, and only for whoever has an archive

        try:
            return parquet.read(self._content(name))
        except pa.ArrowException as error:
            raise TraceFileError(self._place.where(name), str(error)) from error

    def _content(self, name: str) -> bytes:
        found = self._place.get(name)
        if found is None:
            raise TraceFileError(self._place.where(name), "it is not there")
        self._require_whole(name, found)
        return found

    def _require_whole(self, name: str, content: bytes) -> None:
        if not parquet.is_whole(name, content):
            raise TraceFileError(self._place.where(name), "its bytes are not those of its name")


def archive_of(config: Config) -> Archive | None:
    """As `[traces]` wants it; None: every trace stays in the database."""
    wanted = config.traces
    if wanted.archive is None:
        return None
    is_bucket = wanted.archive.startswith("s3://")
    where = wanted.archive if is_bucket else str(config.path(wanted.archive))
    return Archive(place_at(where, wanted.endpoint))
