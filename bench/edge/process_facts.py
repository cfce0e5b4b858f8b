"""What the kernel says of a process: memory and processor time. Linux only.

Must never change the process that it looks at.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KB_PER_MB = 1000.0 / 1.024  # the kernel counts in 1,024 bytes, the goals in 10^6


@dataclass(frozen=True)
class Memory:
    """In MB: proportional share, resident, and resident at most so far."""

    pss_mb: float
    rss_mb: float
    peak_mb: float


def memory(pid: int) -> Memory:
    """Of one process, now."""
    rollup, status = _table(pid, "smaps_rollup"), _table(pid, "status")
    return Memory(_mb(rollup["Pss"]), _mb(rollup["Rss"]), _mb(status["VmHWM"]))


def cpu_s(pid: int) -> float:
    """Processor time of all threads, user and system, exact to the scheduler's clock."""
    tasks = Path(f"/proc/{pid}/task")
    taken = [(task / "schedstat").read_text().split()[0] for task in tasks.iterdir()]
    return sum(map(int, taken)) / 1e9


def _table(pid: int, name: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/{name}").read_text(encoding="ascii").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _mb(text: str) -> float:
    return int(text.split(maxsplit=1)[0]) / KB_PER_MB
