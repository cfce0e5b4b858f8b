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
from bench.edge.figures import Figure
from bench.edge.installed import Installed, install, unit_environment
from bench.edge.process_facts import cpu_s, memory
from common.bundle import MODEL_FILE

HOUR = 3600 * HZ
BURST = 200
PAUSE_S = 0.1
DEADLINE_S = 120.0

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
from edge_agent.trip_monitor import TripMonitor
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
            _cpu(driven, installed, 12.0 if quick else 60.0),
            *_size(installed),
        ]


def _memory(driven: Car, installed: Installed, count: int) -> list[Figure]:
    """Along the drive; the pause between two bursts lets queues of a fast feed run empty."""
    bare_mb = _bare_mb(driven, installed)
    at: list[int] = []
    pss: list[float] = []
    rss: list[float] = []
    with agent(driven, installed) as process:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        fed = lines(driven.bundle, count, "hour")
        for number in range(0, count, BURST):
            process.stdin.writelines(fed[number : number + BURST])
            process.stdin.flush()
            time.sleep(PAUSE_S)
            found = memory(process.pid)
            at.append(number + BURST)
            pss.append(found.pss_mb)
            rss.append(found.rss_mb)
        peak_mb = memory(process.pid).peak_mb
    half = len(at) // 2
    slope_mb_per_hour = float(np.polyfit(at[half:], pss[half:], 1)[0]) * HOUR
    steady_mb = statistics.median(pss[half:])
    how = f"{count} samples, {installed.how}"
    return [
        Figure("memory, steady (PSS, median)", steady_mb, "MB", 65.0, 52.0, note=how),
        Figure("memory, steady (RSS, median)", statistics.median(rss[half:]), "MB", note=how),
        Figure("memory, peak (RSS)", peak_mb, "MB", note="VmHWM, start included"),
        Figure("memory, growth", slope_mb_per_hour, "MB/h", 1.0, 0.2, note="PSS, second half"),
        Figure(
            "memory, beside numpy, runtime and model alone",
            steady_mb / bare_mb,
            "times",
            note=f"peer: {bare_mb:.1f} MB PSS in a bare process",
        ),
    ]


def _bare_mb(driven: Car, installed: Installed) -> float:
    command = [str(installed.python), "-c", BARE, str(driven.bundle_folder / MODEL_FILE)]
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
    return found.pss_mb


def _start(driven: Car, installed: Installed, repeats: int) -> list[Figure]:
    sample = lines(driven.bundle, 1, "start")[0]
    _first_prediction_s(driven, installed, sample)
    warm = [_first_prediction_s(driven, installed, sample) for _ in range(repeats)]
    cold = []
    for _ in range(repeats):
        installed.evict()
        cold.append(_first_prediction_s(driven, installed, sample))
    note = f"process start to first prediction, median of {repeats}, own files"
    return [
        Figure(f"start, {kind}", statistics.median(found), "s", 0.8, 0.35, note=f"{note} {where}")
        for kind, found, where in (
            ("page cache warm", warm, "in the page cache"),
            ("page cache cold", cold, "evicted from it"),
        )
    ]


def _first_prediction_s(driven: Car, installed: Installed, sample: bytes) -> float:
    started_s = time.monotonic()
    with agent(driven, installed, TIMED) as process:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101 - the same
        process.stdin.write(sample)
        process.stdin.flush()
        return float(process.stdout.readline()) - started_s


def _cpu(driven: Car, installed: Installed, seconds: float) -> Figure:
    """In real time: the polling between two samples costs as well."""
    fed = lines(driven.bundle, round((seconds + 3.0) * HZ), "cpu")
    with agent(driven, installed) as process:
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        begun_s = begun_cpu_s = 0.0
        due_s = time.monotonic()
        for number, line in enumerate(fed):
            if number == 3 * HZ:  # started and connected
                begun_s, begun_cpu_s = time.monotonic(), cpu_s(process.pid)
            process.stdin.write(line)
            process.stdin.flush()
            due_s += 1.0 / HZ
            time.sleep(max(due_s - time.monotonic(), 0.0))
        share = (cpu_s(process.pid) - begun_cpu_s) / (time.monotonic() - begun_s)
    note = f"{seconds:g} s at {HZ} Hz, all threads"
    return Figure("processor at 10 Hz, one core", 100.0 * share, "%", 2.0, 0.5, note=note)


def _size(installed: Installed) -> list[Figure]:
    size_mb = installed.size_mb()
    if size_mb is None:
        return []
    return [Figure("installed size", size_mb, "MB", 150.0, 80.0, note=installed.how)]
