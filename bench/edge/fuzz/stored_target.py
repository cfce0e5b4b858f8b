"""What the agent reads of its own disk and of a program's lines: damaged, old, or hostile.

Promised: lines never raise, and samples that pass make trips that the cloud believes; a checkpoint
is refused or goes on driving; a stored revision that is not believed leaves the nominal parameters.
"""

from __future__ import annotations

import io
import json
import math
import zlib
from random import Random
from typing import Any, Final

import msgspec

from bench.edge.fuzz.mutation import NUMBERS, json_of
from bench.edge.fuzz.target import Plain, Target, promise
from bench.edge.fuzz.vehicle import START, samples, the_vehicle
from common.messages import MAX_ODOMETER, Breach, TripSummary, decode, encode
from common.trace import from_wire
from edge_agent.config import Derived, Source
from edge_agent.errors import RefusedSampleError
from edge_agent.samples import Sample, header_problem
from edge_agent.sources import BadRow
from edge_agent.sources.lines import bounded_lines, read_json_lines
from edge_agent.timekeeping.clock import Clock
from edge_agent.trips import trip_state
from edge_agent.trips.reports import reports_of
from edge_agent.trips.trip_monitor import TripMonitor

COLUMNS: Final = Source(derived={"distance_km": Derived("odometer")})
DERIVED: Final = COLUMNS.derived
TRACE_POINTS: Final = 16
CLOCK: Final = Clock(lambda: START, lambda: 0.0)


def lines_target() -> Target:
    """Lines of a program that writes samples."""
    rows = [
        {
            "time_s": START + i,
            "odometer": 1000.0 + 5.0 * i,
            "load_kg": 500.0,
            "voltage_v": 3.9,
            "trip_id": "trip-1",
            "ignition": "on",
        }
        for i in range(4)
    ]
    seeds = (b"".join(json.dumps(row).encode() + b"\n" for row in rows), b"{}\n[]\n1\n")
    return Target("lines", seeds, _mutate_lines, check_lines)


def check_lines(data: bytes) -> None:
    """Through the source and one trip."""
    vehicle = the_vehicle()
    stream = bounded_lines(io.BytesIO(data))
    monitor: TripMonitor | None = None
    for item in read_json_lines(stream, COLUMNS, vehicle.who.manifest, (), CLOCK):
        if isinstance(item, BadRow):
            promise(item.reason, "refused without a reason")
        elif isinstance(item, Sample) and header_problem(item) is None:
            monitor = monitor or TripMonitor("trip-1", item, vehicle.twin, TRACE_POINTS, DERIVED)
            _taken(monitor, item)
    if monitor is not None:
        _check_trip(monitor)


def checkpoint_target() -> Target:
    """A checkpoint whose checksum fits, as an older version or a bad memory may leave one."""
    vehicle = the_vehicle()
    first, *rest = samples(1000.0, 40)
    monitor = TripMonitor("trip-1", first, vehicle.twin, TRACE_POINTS, DERIVED)
    for sample in (first, *rest):
        monitor.add(sample)
    saved = trip_state.encode(monitor.saved(vehicle.who.bundle, is_named=True))
    return Target("checkpoints", (saved,), _mutate_checkpoint, check_checkpoint)


def check_checkpoint(data: bytes) -> None:
    """Refused with ValueError, or the trip goes on to its end."""
    vehicle = the_vehicle()
    try:
        saved = trip_state.decode(data, vehicle.who.bundle)
        monitor = TripMonitor.restored(saved, vehicle.twin, TRACE_POINTS, DERIVED)
    except ValueError:
        return
    for sample in samples(min(max(saved.odometer, 0.0), MAX_ODOMETER)):
        _taken(monitor, sample)
    _check_trip(monitor)


def _taken(monitor: TripMonitor, sample: Sample) -> None:
    try:
        promise(math.isfinite(monitor.add(sample).band95_v), "an error that is no number")
    except RefusedSampleError as error:
        promise(error.problem, "refused without a reason")


def _check_trip(monitor: TripMonitor) -> None:
    who = the_vehicle().who
    if monitor.samples < 2:  # noqa: PLR2004 - what `finish` asks for
        return
    summary, breach = reports_of(monitor.finish(), who)
    promise(decode(encode(summary), TripSummary) == summary, "a summary that the cloud refuses")
    if breach is not None:
        from_wire(decode(encode(breach), Breach).trace, who.manifest)


def _mutate_lines(data: bytes, random: Random, plain: Plain) -> bytes:
    rows = data.splitlines(keepends=True)
    if not rows or random.randrange(8) == 0:
        return plain(data)
    at = random.randrange(len(rows))
    match random.randrange(8):
        case 0:
            rows.insert(at, rows[random.randrange(len(rows))])
        case 1:
            rows[at] = plain(rows[at])
        case 2:
            del rows[at]
        case _:
            rows[at] = json_of(rows[at], random, plain) + b"\n"
    return b"".join(rows)


def _mutate_checkpoint(data: bytes, random: Random, plain: Plain) -> bytes:
    """Field by field, with a checksum that fits."""
    try:
        fields: dict[str, Any] = msgspec.msgpack.decode(data[4:])
        name = random.choice(list(fields))
    except (msgspec.MsgspecError, TypeError, ValueError, IndexError):
        return plain(data)
    if random.randrange(8) == 0:
        return _sealed(plain(data[4:]))
    fields[name] = _other_field(fields[name], random)
    try:
        return _sealed(msgspec.msgpack.encode(fields))
    except (OverflowError, TypeError):
        return data


def _other_field(value: Any, random: Random) -> Any:
    numbers = [number for number in NUMBERS if number < 2**63]
    if isinstance(value, bytes):  # the packed samples: cut or damaged, never another trip's
        return random.choice((b"", value[:-1], value + value, b"\x00" + value))
    if isinstance(value, list) and value:
        at = random.randrange(len(value))
        other = [*value[:at], random.choice(numbers), *value[at + 1 :]]
        return random.choice((value[:at], value + value, other, other, []))
    if isinstance(value, str):
        return random.choice(("", "x" * 200, value + "x", "../" + value))
    return random.choice((*numbers, None, True, [], ""))


def _sealed(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(4, "big") + body
