"""Read strace's account of one program: which of its calls change the watched folder, and how.

What cannot be told (a shared writable mapping, a call that is not known here) is an error, never a
gap in the record.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.edge.disk_changes import Change, Mark, Name, Resize, Sync, SyncFolder, Write

VOLATILE: Final = "-shm"  # SQLite's index of the log: shared memory, made anew after a power cut
_LINE: Final = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+|\?)")
_UNFINISHED: Final = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED: Final = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_UNDERSTOOD: Final = {
    *("openat", "close", "dup", "dup2", "dup3", "fcntl", "mmap"),
    *("write", "pwrite64", "lseek", "ftruncate", "fsync", "fdatasync"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat"),
}
_ARGUMENT: Final = re.compile(r'"(?:\\x[0-9a-f]{2})*"|[^,]+')


class RecordError(Exception):
    """The record would not be whole; what was met, and where."""

    def __init__(self, met: str) -> None:
        super().__init__(f"The disk cannot be recorded: {met}.")


@dataclass
class _Open:
    """An open file of the folder; `file` None: the folder itself."""

    file: int | None
    position: int = 0
    appends: bool = False


class Calls:
    """Of one program; adds what it did to `changes`, which tell what stands in the folder."""

    def __init__(self, folder: Path, marks: Path, cwd: Path, changes: list[Change]) -> None:
        self._folder, self._marks_path, self._cwd, self._changes = folder, marks, cwd, changes
        self._open: dict[int, _Open] = {}
        self._marks: set[int] = set()
        self._half_mark = b""
        self._names: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        for change in changes:
            self._learn(change)

    def take(self, line: str) -> None:
        """One call, on one line. Raises RecordError."""
        found = _LINE.match(line)
        if found is None or found[4] in {"-1", "?"}:
            return  # a signal, an exit, a call that failed or never returned
        call, arguments = found[2], [part.strip() for part in _ARGUMENT.findall(found[3])]
        if "..." in found[3] and call in {"write", "pwrite64"}:
            raise RecordError(f"a write is too long: {line[:100]}")
        if call in _UNDERSTOOD:
            getattr(self, f"_{call}")(arguments, int(found[4], 0))
        else:
            self._refuse(call, arguments)

    def _refuse(self, call: str, arguments: list[str]) -> None:
        """A call that the record does not know matters only where it touches the folder."""
        fds = {int(argument) for argument in arguments if argument.isdigit()}
        names = [self._name(a) for a in arguments if a.startswith('"')]
        if call == "sync" or fds & self._open.keys() or any(name is not None for name in names):
            raise RecordError(f"{call}({', '.join(arguments)[:200]})")

    # ---- opening and closing ------------------------------------------------------------------

    def _openat(self, arguments: list[str], fd: int) -> None:
        path, flags = self._path(arguments[1], arguments[0]), arguments[2]
        self._forget(fd)
        if path == self._marks_path:
            self._marks.add(fd)
        elif path == self._folder:
            self._open[fd] = _Open(None)
        elif (name := self._name(arguments[1], arguments[0])) is not None:
            file = self._file_named(name)
            self._open[fd] = _Open(file, appends="O_APPEND" in flags)
            if "O_TRUNC" in flags and self._sizes[file] > 0:
                self._add(Resize(file, 0))

    def _close(self, arguments: list[str], _result: int) -> None:
        self._forget(int(arguments[0]))

    def _forget(self, fd: int) -> None:
        self._open.pop(fd, None)
        self._marks.discard(fd)

    def _dup(self, arguments: list[str], fd: int) -> None:
        if int(arguments[0]) in self._open:
            self._open[fd] = self._open[int(arguments[0])]

    _dup2 = _dup3 = _dup

    def _fcntl(self, arguments: list[str], result: int) -> None:
        if arguments[1].startswith("F_DUPFD"):
            self._dup(arguments, result)

    def _mmap(self, arguments: list[str], _result: int) -> None:
        if "MAP_SHARED" in arguments[3] and "PROT_WRITE" in arguments[2]:
            self._refuse("mmap", [arguments[4]])

    # ---- data -----------------------------------------------------------------------------------

    def _write(self, arguments: list[str], written: int) -> None:
        fd, data = int(arguments[0]), _bytes(arguments[1])[:written]
        if fd in self._marks:
            self._mark(data)
        if (opened := self._open.get(fd)) is None or opened.file is None:
            return
        if opened.appends:
            opened.position = self._sizes[opened.file]
        self._add(Write(opened.file, opened.position, data))
        opened.position += written

    def _mark(self, data: bytes) -> None:
        *whole, self._half_mark = (self._half_mark + data).split(b"\n")
        self._changes += [Mark(json.loads(line)) for line in whole]

    def _pwrite64(self, arguments: list[str], written: int) -> None:
        if (file := self._file(arguments[0])) is not None:
            data = _bytes(arguments[1])[:written]
            self._add(Write(file, int(arguments[3]), data))

    def _lseek(self, arguments: list[str], position: int) -> None:
        if (opened := self._open.get(int(arguments[0]))) is not None:
            opened.position = position

    def _ftruncate(self, arguments: list[str], _result: int) -> None:
        if (file := self._file(arguments[0])) is not None:
            self._add(Resize(file, int(arguments[1])))

    def _fsync(self, arguments: list[str], _result: int) -> None:
        opened = self._open.get(int(arguments[0]))
        if opened is not None:
            self._add(SyncFolder() if opened.file is None else Sync(opened.file))

    _fdatasync = _fsync

    # ---- names ----------------------------------------------------------------------------------

    def _rename(self, arguments: list[str], _result: int) -> None:
        self._renamed(self._name(arguments[0]), self._name(arguments[1]))

    def _renameat(self, arguments: list[str], _result: int) -> None:
        old, new = self._name(arguments[1], arguments[0]), self._name(arguments[3], arguments[2])
        self._renamed(old, new)

    _renameat2 = _renameat

    def _renamed(self, old: str | None, new: str | None) -> None:
        if (old is None) != (new is None):
            raise RecordError(f"a file is moved over the folder's border: {old} to {new}")
        if old is not None and new is not None:
            self._add((Name(old, None), Name(new, self._names[old])))

    def _unlink(self, arguments: list[str], _result: int) -> None:
        self._unlinked(self._name(arguments[0]))

    def _unlinkat(self, arguments: list[str], _result: int) -> None:
        self._unlinked(self._name(arguments[1], arguments[0]))

    def _unlinked(self, name: str | None) -> None:
        if name is not None:
            self._add((Name(name, None),))

    # ---- helpers --------------------------------------------------------------------------------

    def _add(self, change: Change) -> None:
        self._changes.append(change)
        self._learn(change)

    def _learn(self, change: Change) -> None:
        if isinstance(change, tuple):
            for name in change:
                self._names.pop(name.name, None)
                if name.file is not None:
                    self._names[name.name] = name.file
                    self._sizes.setdefault(name.file, 0)
        elif isinstance(change, Write):
            end = change.offset + len(change.data)
            self._sizes[change.file] = max(self._sizes[change.file], end)
        elif isinstance(change, Resize):
            self._sizes[change.file] = change.size

    def _file_named(self, name: str) -> int:
        """The file of that name, made when there is none."""
        if name not in self._names:
            self._add((Name(name, len(self._sizes)),))
        return self._names[name]

    def _file(self, fd: str) -> int | None:
        opened = self._open.get(int(fd))
        return opened.file if opened else None

    def _path(self, quoted: str, beside: str = "AT_FDCWD") -> Path:
        opened = self._open.get(int(beside)) if beside.isdigit() else None
        base = self._folder if opened else self._cwd
        return Path(os.path.normpath(base / os.fsdecode(_bytes(quoted))))

    def _name(self, quoted: str, beside: str = "AT_FDCWD") -> str | None:
        """Of a file of the folder that a power cut may damage; None for every other path."""
        path = self._path(quoted, beside)
        if path.parent == self._folder:
            return None if path.name.endswith(VOLATILE) else path.name
        if self._folder in path.parents:
            raise RecordError(f"{path} is in a folder within the folder")
        return None


def _bytes(quoted: str) -> bytes:
    return ast.literal_eval(f"b{quoted}")  # type: ignore[no-any-return]


def whole_lines(lines: Iterable[str]) -> Iterator[str]:
    """Each call on one line: of threads that ran at once strace writes a call in two halves."""
    halves: dict[str, str] = {}
    for line in lines:
        text = line.rstrip("\n")
        if found := _UNFINISHED.match(text):
            halves[found[1]] = f"{found[1]} {found[2]}"
        elif found := _RESUMED.match(text):
            yield halves.pop(found[1], f"{found[1]} ") + found[2]
        else:
            yield text
