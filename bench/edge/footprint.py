"""What the agent takes of the vehicle: memory, processor, time to start, room on the disk.

Real processes of `edge-agent run`, installed as on a vehicle, connected to a real broker and cloud.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.edge.driven import HZ, Car, agent, car, lines
from bench.edge.installed import Installed, install, unit_environment
from bench.edge.process_facts import Memory, cpu_s, memory
from bench.figures import Figure
from common.bundle import MODEL_FILE

HOUR = 3600 * HZ
SETTLE_S = 3  # started and connected
BURST = 200
PAUSE_S = 0.1
CHECKPOINT_S = 60.0 * HZ * PAUSE_S / BURST  # after as many samples as in a minute at 10 Hz

# What no agent that predicts can do without: the yardstick.
BARE = """
import sys, numpy
try:
    from tflite_runtime.interpreter import Interpreter
except ImportError:
    from ai_edge_litert.interpreter import Interpreter
model = Interpreter(model_path=sys.argv[1], num_threads=1)
for tensor in model.get_input_details():
    model.resize_tensor_input(tensor["index"], [1, tensor["shape"][1]])
model.allocate_tensors()
model.invoke()
print("ready", flush=True)
sys.stdin.read()
"""
# `edge-agent run` itself, with a clock on its first prediction.
TIMED = """
import sys, time
from edge_agent.trips.trip_monitor import TripMonitor
add = TripMonitor.add
def first(monitor, sample):
    error = add(monitor, sample)
    print(time.monotonic(), flush=True)
    TripMonitor.add = add
    return error
TripMonitor.add = first
from edge_agent.cli import main
sys.exit(main(sys.argv[1:]))
"""


def measure(*, quick: bool) -> list[Figure]:
    """Memory along an hour of driving, CPU at 10 Hz, cold start, installed size."""
    with tempfile.TemporaryDirectory(prefix="twin-installed-") as folder, car() as driven:
        installed = install(Path(folder) / "agent")
        return [
            *_memory(driven, installed, HOUR // 6 if quick else HOUR),
            *_start(driven, installed, 3 if quick else 15),
            _driving(driven, installed, 12.0 if quick else 60.0),
            _parked(driven, installed, 5.0 if quick else 30.0),
            *_size(installed),
        ]


def _memory(driven: Car, installed: Installed, count: int) -> list[Figure]:
    """Along the drive; the pause between two bursts lets queues of a fast feed run empty.

    Checkpoints come as often for each sample as they do at 10 Hz. PSS shares out what other
    processes map as well, on this machine many; RSS is what a car with nothing else would see.
    """
    # What was just written lies in the page cache in large pieces, which are mapped whole (2 to
    # 4 MB more): after a boot it does not.
    installed.evict()
    bare = _bare(driven, installed)
    found: list[Memory] = []
    with agent(driven, installed, limits=f"checkpoint_s = {CHECKPOINT_S}") as process:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        fed = lines(driven.bundle, count, "hour")
        for number in range(0, count, BURST):
            process.stdin.writelines(fed[number : number + BURST])
            process.stdin.flush()
            time.sleep(PAUSE_S)
            found.append(memory(process.pid))
    later = found[len(found) // 2 :]
    rss_mb = [each.rss_mb for each in later]
    growth_mb = float(np.polyfit(np.arange(len(later)) * BURST, rss_mb, 1)[0]) * HOUR
    pss_mb, steady_mb = statistics.median(each.pss_mb for each in later), statistics.median(rss_mb)
    how = f"{count} samples at once, connected, a breach and its revision among them"
    peer = f"peer: numpy, runtime and model alone, {bare.pss_mb:.1f} MB PSS, {bare.rss_mb:.1f} RSS"
    return [
        Figure("memory, steady (PSS, median)", pss_mb, "MB", 65.0, 52.0, note=how),
        Figure("memory, steady (RSS, median)", steady_mb, "MB", note="shared pages counted whole"),
        Figure(
            "memory, peak (RSS)", found[-1].peak_mb, "MB", 65.0, 52.0, note="VmHWM, from the start"
        ),
        Figure("memory, growth", growth_mb, "MB/h", 1.0, 0.2, note="RSS, second half, fitted"),
        Figure("memory, ratio (RSS)", steady_mb / bare.rss_mb, "times", note=peer),
    ]


def _bare(driven: Car, installed: Installed) -> Memory:
    model = driven.folder / "bundle" / MODEL_FILE
    command = [*installed.command, "-c", BARE, str(model)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=unit_environment(),
    ) as process:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        process.stdout.readline()
        found = memory(process.pid)
        process.kill()
    return found


def _start(driven: Car, installed: Installed, repeats: int) -> list[Figure]:
    sample = lines(driven.bundle, 1, "start")[0]
    _first_prediction_s(driven, installed, sample)
    warm = [_first_prediction_s(driven, installed, sample) for _ in range(repeats)]
    cold = []
    for _ in range(repeats):
        installed.evict()
        cold.append(_first_prediction_s(driven, installed, sample))
    return [_start_figure("in the page cache", warm), _start_figure("evicted from it", cold)]


def _start_figure(files: str, taken_s: list[float]) -> Figure:
    note = f"to the first prediction, median of {len(taken_s)}, best {min(taken_s):.3f} s"
    return Figure(f"start, files {files}", statistics.median(taken_s), "s", 0.8, 0.35, note=note)


def _first_prediction_s(driven: Car, installed: Installed, sample: bytes) -> float:
    started_s = time.monotonic()
    with agent(driven, installed, TIMED) as process:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101 - the same
        process.stdin.write(sample)
        process.stdin.flush()
        return float(process.stdout.readline()) - started_s


def _driving(driven: Car, installed: Installed, seconds: float) -> Figure:
    """In real time: the polling between two samples costs as well."""
    fed = lines(driven.bundle, round((seconds + SETTLE_S) * HZ), "cpu")
    with agent(driven, installed) as process:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        share = _Share(process.pid)
        due_s = time.monotonic()
        for number, line in enumerate(fed):
            if number == SETTLE_S * HZ:
                share = _Share(process.pid)
            process.stdin.write(line)
            process.stdin.flush()
            due_s += 1.0 / HZ
            time.sleep(max(due_s - time.monotonic(), 0.0))
        percent = share.percent()
    note = f"{seconds:g} s of real time, connected, all threads"
    return Figure("processor at 10 Hz, one core", percent, "%", 2.0, 0.5, note=note)


def _parked(driven: Car, installed: Installed, seconds: float) -> Figure:
    with agent(driven, installed) as process:
        time.sleep(SETTLE_S)
        share = _Share(process.pid)
        time.sleep(seconds)
        percent = share.percent()
    return Figure("processor, parked", percent, "%", note=f"{seconds:g} s without a sample")


class _Share:
    """Processor time of a process from now on, as a share of one core."""

    def __init__(self, pid: int) -> None:
        self._pid, self._begun_s, self._begun_cpu_s = pid, time.monotonic(), cpu_s(pid)

    def percent(self) -> float:
        taken_s = cpu_s(self._pid) - self._begun_cpu_s
        return 100.0 * taken_s / (time.monotonic() - self._begun_s)


def _size(installed: Installed) -> list[Figure]:
    size_mb = installed.size_mb()
    if size_mb is None:
        return []
    return [Figure("installed size", size_mb, "MB", 150.0, 80.0, note=installed.how)]
