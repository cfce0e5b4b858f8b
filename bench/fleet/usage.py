"""Processor time and memory of the roles, the database and the broker, by name.

Must never count the load's own process among them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

MIB = 2**20


@dataclass(frozen=True)
class Usage:
    """At one moment. CPU seconds since their start, memory (PSS would need root) as RSS in MiB."""

    at_s: float
    cpu_s: Mapping[str, float]
    memory_mib: Mapping[str, float]

    def since(self, before: Usage) -> Usage:
        """What was used between; memory as it is now."""
        spent = {name: cpu - before.cpu_s.get(name, 0.0) for name, cpu in self.cpu_s.items()}
        return Usage(self.at_s - before.at_s, spent, self.memory_mib)

    def told(self, cars_cpu_s: float) -> str:
        """Processor time by name, that of the load beside it."""
        spent = ", ".join(f"{role} {cpu:.1f}" for role, cpu in self.cpu_s.items())
        return f"CPU s: cars {cars_cpu_s:.1f}, {spent}"


def usage(roles: Mapping[str, Sequence[int]]) -> Usage:
    """Of these process ids, with their children."""
    cpu_s = {name: sum(map(_cpu_s, pids)) for name, pids in roles.items()}
    memory = {name: max(map(_memory_mib, pids), default=0.0) for name, pids in roles.items()}
    return Usage(time.monotonic(), cpu_s, memory)


def _family(pid: int) -> Iterator[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)


def _cpu_s(pid: int) -> float:
    total = 0.0
    for process in _family(pid):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            if process.pid == pid:
                total += times.children_user + times.children_system
    return total


def _memory_mib(pid: int) -> float:
    """Of the process alone: a database's children share most of theirs."""
    with suppress(psutil.NoSuchProcess):
        return float(psutil.Process(pid).memory_info().rss) / MIB
    return 0.0
