"""Record what programs do to one folder, whole and in order.

A program runs under strace, so that everything is seen: SQLite's writes, Python's own, those of a
library. Must never change what the program does.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.edge.disk_changes import Change
from bench.edge.strace_reading import Calls, RecordError, whole_lines

TRACED: Final = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,mmap,"
    "write,pwrite64,writev,pwritev,pwritev2,truncate,ftruncate,fallocate,sendfile,copy_file_range,"
    "fsync,fdatasync,sync,syncfs,sync_file_range,"
    "rename,renameat,renameat2,unlink,unlinkat,link,linkat,symlink,symlinkat,mkdir,mkdirat,rmdir"
)


@dataclass
class Recorder:
    """Of one folder, over any number of programs one after another."""

    folder: Path
    marks: Path
    changes: list[Change] = field(default_factory=list)

    def run(self, command: Sequence[str], env: Mapping[str, str]) -> int:
        """Run a program to its end and add what it did; its exit code. Raises RecordError.

        What it says goes to `said.log` beside the marks.
        """
        strace = shutil.which("strace")
        if strace is None:
            raise RecordError("strace is not installed")
        log, said = self.marks.with_name("strace.log"), self.marks.with_name("said.log")
        flags = ["-f", "--seccomp-bpf", "-qq", "-xx", "-s", "4000000", "-e", f"trace={TRACED}"]
        with said.open("ab") as output:
            done = subprocess.run(
                [strace, *flags, "-o", str(log), *command],
                env=dict(env),
                stdout=output,
                stderr=output,
                check=False,
            )
        calls = Calls(self.folder, self.marks, Path.cwd(), self.changes)
        with log.open() as lines:
            for line in whole_lines(lines):
                calls.take(line)
        log.unlink()
        return done.returncode
