"""What one sample costs: decode, predict with its band, compare, keep. Against the bare model call.

Each way in is timed sample by sample on the fleet's bundle, one thread, after a warm-up. Must never
assert a time.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from bench.figures import Figure
from common import calibration
from common.bundle import Bundle
from common.calibration import Settings
from common.model import VoltageModel
from demo.simulated import train, training_settings
from edge_agent.config import Can, CanSignal, Derived, Source
from edge_agent.samples import Sample
from edge_agent.sources.can_source import CanSource
from edge_agent.sources.lines import read_json_lines
from edge_agent.timekeeping.clock import SYSTEM, Clock
from edge_agent.trips.trip_monitor import TripMonitor, Twin

SAMPLES, QUICK_SAMPLES = 18_000, 4_000  # half an hour at 10 Hz
ROUNDS: Final = 3  # the quietest counts: the others measured other programs
WARM_UP: Final = 600
LEAST_US, AIM_US = 200.0, 50.0
START: Final = 1_700_000_000.0
SEED, TRIPS, THRESHOLD_V = 1, 20, 0.05
RATE_HZ: Final = 10.0
WAY_KM: Final = 60.0


# For each signal of the bundle, where it stands in the sample DBC.
_SIGNALS: Final = {
    "voltage_v": CanSignal("CellVoltageMean"),
    "odometer": CanSignal("Odometer"),
    "load_kg": CanSignal("Load"),
    "speed_m_s": CanSignal("Speed", scale=1.0 / 3.6),
    "ignition": CanSignal("Ignition"),
}
_DERIVED: Final = {
    "distance_km": Derived("odometer"),
    "average_speed_m_s": Derived("mean", of="speed_m_s"),
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Frame:
    """As python-can has it."""

    arbitration_id: int
    data: bytes
    is_extended_id: bool = False
    is_error_frame: bool = False
    is_remote_frame: bool = False


def measure(*, quick: bool) -> list[Figure]:
    """Median and 99th percentile of each way in, and the ratio to the bare model call."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = train(training_settings(THRESHOLD_V), Path(folder) / "fleet", SEED, TRIPS).bundle
    samples = list(_trip(bundle, QUICK_SAMPLES if quick else SAMPLES))
    bare_us = _bare_call_us(bundle, samples)
    figures = [Figure("bare model call, median", float(np.median(bare_us)), "µs", note="one row")]
    for name, way in (("sample", _sample_us), ("JSON line", _line_us), ("CAN frames", _can_us)):
        rounds = [way(bundle, samples) for _ in range(ROUNDS)]
        quietest = min(rounds, key=lambda taken_us: float(np.percentile(taken_us, 99)))
        figures += _figures(name, quietest, float(np.median(bare_us)))
    return figures


def _figures(name: str, taken_us: Sequence[float], bare_us: float) -> list[Figure]:
    median, p99 = (float(np.percentile(taken_us, share)) for share in (50, 99))
    return [
        Figure(f"{name}: decode, predict, compare, p99", p99, "µs", LEAST_US, AIM_US),
        Figure(f"{name}: the same, median", median, "µs"),
        Figure(f"{name}: median over the bare model call", median / bare_us, "×", note="same run"),
    ]


def _bare_call_us(bundle: Bundle, samples: Sequence[Sample]) -> list[float]:
    model = VoltageModel(bundle)
    theta = calibration.prior(bundle.manifest).theta
    rows = [[sample.signals[f.name] for f in bundle.manifest.features] for sample in samples]
    return _each_us(rows, lambda row: model.predict_one(row, theta))


def _sample_us(bundle: Bundle, samples: Sequence[Sample]) -> list[float]:
    monitor = _monitor(bundle, samples[0])
    return _each_us(samples, monitor.add)


def _line_us(bundle: Bundle, samples: Sequence[Sample]) -> list[float]:
    monitor, columns = _monitor(bundle, samples[0]), Source()
    lines = [
        json.dumps(
            {"time_s": s.time_s, "odometer": s.odometer, **s.signals, "voltage_v": s.voltage_v}
        )
        for s in samples
    ]

    def take(line: str) -> None:
        (sample,) = read_json_lines([line], columns, bundle.manifest, (), SYSTEM)
        assert isinstance(sample, Sample)  # noqa: S101 - the line is our own
        monitor.add(sample)

    return _each_us(lines, take)


def _can_us(bundle: Bundle, samples: Sequence[Sample]) -> list[float]:
    """A sample of the frames that came since the one before: all messages of the sample DBC."""
    import cantools  # noqa: PLC0415 - an extra of the vehicle

    from firmware_sim.can_frames import DBC, Encoder  # noqa: PLC0415

    now = [0.0]
    database: Any = cantools.database.load_file(DBC)
    can = Can(dbc=str(DBC), signals=_SIGNALS, interval_s=1.0 / RATE_HZ)
    columns = Source(kind="can", can=can, derived=_DERIVED)
    clock = Clock(lambda: START + now[0], lambda: now[0])
    source = CanSource(can, columns, bundle.manifest, database, (), clock)
    monitor = TripMonitor("bench", samples[0], _twin(bundle), 50, _DERIVED)
    encoder = Encoder()
    messages = [database.get_message_by_name(name) for name in encoder.names]
    bursts = [
        [_Frame(m.frame_id, encoder.encode(m, _values(sample))) for m in messages]
        for sample in samples
    ]

    def take(burst: list[_Frame]) -> None:
        for frame in burst:
            source.frame(frame)
        for item in source.due():
            assert isinstance(item, Sample)  # noqa: S101 - the frames are our own
            monitor.add(item)

    def tick() -> None:
        now[0] += 1.0 / RATE_HZ

    return _each_us(bursts, take, tick)


def _each_us(
    items: Iterable[T], act: Callable[[T], object], between: Callable[[], None] = lambda: None
) -> list[float]:
    """How long each took, but for the first ones."""
    taken = []
    gc.collect()
    gc.freeze()  # what only the bench holds is nothing for the agent's collector to go through
    for item in items:
        between()
        start = time.perf_counter_ns()
        act(item)
        taken.append((time.perf_counter_ns() - start) / 1000.0)
    gc.unfreeze()
    return taken[WARM_UP:]


def _trip(bundle: Bundle, count: int) -> Iterator[Sample]:
    """A drive of WAY_KM, with the voltage that the new battery gives and the noise of a BMS."""
    share = np.linspace(0.0, 1.0, count)
    speed = np.full(count, 18.0)
    rows = np.column_stack([WAY_KM * share, speed, np.full(count, 2000.0)])
    theta = calibration.prior(bundle.manifest).theta
    noise_v = np.random.default_rng(SEED).normal(0.0, 0.01, count)
    voltage = VoltageModel(bundle).predict(rows, theta) + noise_v
    names = [feature.name for feature in bundle.manifest.features]
    for i, (row, voltage_v) in enumerate(zip(rows.tolist(), voltage.tolist(), strict=True)):
        yield Sample(START + i / RATE_HZ, row[0], dict(zip(names, row, strict=True)), voltage_v)


def _columns(sample: Sample) -> dict[str, float]:
    """A line of a program that reads a BMS."""
    own = {"time_s": sample.time_s, "odometer": sample.odometer, "voltage_v": sample.voltage_v}
    return {**own, **sample.signals}


def _values(sample: Sample) -> dict[str, float]:
    """All signals of the sample DBC."""
    cell_v = dict.fromkeys(
        ("CellVoltageMin", "CellVoltageMax", "CellVoltageMean"), sample.voltage_v
    )
    cells = dict.fromkeys(("CellTemperatureMin", "CellTemperatureMax", "CellTemperatureMean"), 20.0)
    return {
        **cell_v,
        **cells,
        "PackVoltage": 96.0 * sample.voltage_v,
        "PackCurrent": 10.0,
        "StateOfCharge": 80.0,
        "CoolantTemperature": 20.0,
        "Speed": 3.6 * sample.signals["average_speed_m_s"],
        "Ignition": 1.0,
        "Odometer": sample.odometer,
        "Load": sample.signals["load_kg"],
        "UnixTime": sample.time_s,
    }


def _twin(bundle: Bundle) -> Twin:
    prior = calibration.prior(bundle.manifest)
    return Twin(bundle.manifest, VoltageModel(bundle), prior, 0, Settings())


def _monitor(bundle: Bundle, first: Sample) -> TripMonitor:
    return TripMonitor("bench", first, _twin(bundle), 50)
