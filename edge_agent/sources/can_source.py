"""Samples from the car's CAN bus: frames in, a sample at each interval, reconnecting for ever.

Reads only: nothing is ever sent onto the bus. Work is bounded: of what comes faster than
`frames_per_s` the kernel keeps what its buffer holds and drops the rest. Must never end, whatever
the bus or its nodes do, and never need python-can before this source is chosen.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from common.manifest import Manifest
from edge_agent.config import Can, Config, Source
from edge_agent.errors import CanSetupError, ExtraMissingError
from edge_agent.samples import Sample
from edge_agent.sources.can_frames import FrameReader, Reading
from edge_agent.sources.can_sampler import Sampler
from edge_agent.sources.items import BadRow, Item, Skipped, signal_names, to_sample
from edge_agent.timekeeping.clock import SYSTEM, Clock

log = logging.getLogger(__name__)

REPORT_S: Final = 30.0
WINDOW_S: Final = 0.1
LONGEST_RECV_S: Final = 0.1
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0


class Bus(Protocol):
    """What of python-can is used."""

    def recv(self, timeout: float) -> Any:
        """The next frame, or None after `timeout` seconds."""

    def shutdown(self) -> None:
        """Let go of it."""

    def set_filters(self, filters: Any) -> None:
        """Let through only these identifiers."""


def opened_can(config: Config, manifest: Manifest) -> Iterator[Item]:
    """The configured bus. Raises CanSetupError, ExtraMissingError at once, nothing later."""
    can = config.source.can
    assert can is not None  # noqa: S101 - the configuration was checked
    python_can, cantools = _library("can"), _library("cantools")
    try:
        database = cantools.database.load_file(config.path(can.dbc), database_format="dbc")
    except Exception as error:
        raise CanSetupError(f"{can.dbc} is no DBC that can be read ({error})") from error
    if can.interface not in python_can.VALID_INTERFACES:
        raise CanSetupError(f"python-can knows no interface {can.interface!r}")
    source = CanSource(can, config.source, manifest, database, config.trips.signals, SYSTEM)

    def open_bus() -> Bus:
        bus: Bus = python_can.Bus(interface=can.interface, channel=can.channel, **can.options)
        return bus

    return source.items(open_bus, time.sleep)


class CanSource:
    """What is known of one bus. `items` is the source; the rest is what it is made of."""

    def __init__(
        self,
        can: Can,
        columns: Source,
        manifest: Manifest,
        database: Any,
        extra: tuple[str, ...],
        clock: Clock,
    ) -> None:
        self._can, self._columns, self._manifest, self._extra = can, columns, manifest, extra
        self._clock = clock
        self._reader = FrameReader(database, can)
        needed = [*signal_names(manifest, columns, extra), manifest.target.name, columns.odometer]
        missing = [name for name in needed if name not in can.signals]
        if missing:
            raise CanSetupError(f"[source.can.signals] does not say where {missing[0]} stands")
        if columns.time_s in can.signals:
            needed.append(columns.time_s)
        stale_s = {name: wanted.stale_s or can.stale_s for name, wanted in can.signals.items()}
        now_s = clock.monotonic()
        self._sampler = Sampler(stale_s, needed, now_s)
        self._next_sample_s = now_s + can.interval_s
        self._next_report_s = now_s + REPORT_S
        self._counts: Counter[str] = Counter()
        self._examples: list[BadRow] = []
        self._shown: set[str] = set()
        self._is_outage_told = False

    def items(
        self, open_bus: Callable[[], Bus], sleep: Callable[[float], object]
    ) -> Iterator[Item]:
        """For ever: what the bus says, through every outage of the bus."""
        wait_s = FIRST_WAIT_S
        while True:
            try:
                bus = open_bus()
            except Exception as error:  # noqa: BLE001 - each driver has errors of its own
                self._tell_outage(error)
                yield from self._waited(wait_s, sleep)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            try:
                for item in self._listened(bus, sleep):
                    wait_s = FIRST_WAIT_S
                    yield item
            except Exception as error:  # noqa: BLE001 - the same
                self.count("can_bus_lost", f"{type(error).__name__}: {error}", "")
                self._tell_outage(error)
            finally:
                _close(bus)
            yield from self._waited(wait_s, sleep)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def frame(self, message: Any) -> None:
        """One frame as python-can has it."""
        now_s = self._clock.monotonic()
        if message.is_error_frame or message.is_remote_frame:
            self.count("can_error_frame", "an error or remote frame", str(message))
            return
        key = (int(message.arbitration_id), bool(message.is_extended_id))
        reading: Reading = self._reader.read(key, bytes(message.data), now_s)
        self._sampler.take(reading.values, now_s)
        for trouble in reading.troubles:
            self.count(trouble.name, trouble.reason, f"{key[0]:X}#{bytes(message.data).hex()}")

    def due(self) -> Iterator[Item]:
        """The sample whose time has come, and the report on what was skipped."""
        now_s = self._clock.monotonic()
        if now_s >= self._next_sample_s:
            late = now_s - self._next_sample_s > self._can.interval_s
            self._next_sample_s = (now_s if late else self._next_sample_s) + self._can.interval_s
            item = self._sample(now_s)
            if item is not None:
                yield item
        if now_s >= self._next_report_s:
            self._next_report_s = now_s + REPORT_S
            if self._counts:
                counts, self._counts = dict(self._counts), Counter()
                examples, self._examples = tuple(self._examples), []
                yield Skipped(counts, examples)

    def count(self, name: str, reason: str, frame: str) -> None:
        """Count a trouble; the first of its name is kept for a person to look at."""
        self._counts[name] += 1
        if name not in self._shown:
            self._shown.add(name)
            self._examples.append(BadRow(frame, reason))

    def _listened(self, bus: Bus, sleep: Callable[[float], object]) -> Iterator[Item]:
        budget = most = max(int(self._can.frames_per_s * WINDOW_S), 1)
        window_ends_s = self._clock.monotonic() + WINDOW_S
        is_filtered = False
        while True:
            message = bus.recv(self._until_due_s())
            if message is not None:
                self._is_outage_told = False
                budget -= 1
                self.frame(message)
            yield from self.due()
            now_s = self._clock.monotonic()
            if budget == 0:
                self.count("can_babbling", f"more than {self._can.frames_per_s} frames/s", "")
                if not is_filtered and self._can.interface == "socketcan":
                    is_filtered = True
                    bus.set_filters(self._filters())  # the kernel throws the strangers away
                sleep(max(window_ends_s - now_s, 0.0))
                now_s = max(self._clock.monotonic(), window_ends_s)
            if now_s >= window_ends_s:
                budget, window_ends_s = most, now_s + WINDOW_S

    def _until_due_s(self) -> float:
        return min(max(self._next_sample_s - self._clock.monotonic(), 0.0), LONGEST_RECV_S)

    def _filters(self) -> list[dict[str, Any]]:
        return [
            {"can_id": can_id, "can_mask": 0x1FFFFFFF if extended else 0x7FF, "extended": extended}
            for can_id, extended in self._reader.identifiers()
        ]

    def _sample(self, now_s: float) -> Sample | BadRow | None:
        moment = self._sampler.moment(now_s)
        for name in moment.newly_stale:
            self.count(f"can_stale:{name}", f"{name} has not come for its stale_s", "")
        if moment.missing:
            self.count("can_no_sample", f"no fresh {', '.join(moment.missing)}", "")
            return None
        row: dict[str, Any] = dict(moment.values)
        ignition = row.pop(self._columns.ignition, None)
        if ignition is not None:
            row[self._columns.ignition] = "on" if ignition > 0.0 else "off"
        unix_s = self._clock.unix()
        row.setdefault(self._columns.time_s, unix_s)
        item = to_sample(row, self._columns, self._manifest, self._extra)
        return item.arrived_at(now_s, unix_s) if isinstance(item, Sample) else item

    def _waited(self, seconds: float, sleep: Callable[[float], object]) -> Iterator[Item]:
        """Without a bus signals become stale, too, and the report goes out."""
        ends_s = self._clock.monotonic() + seconds
        while (left_s := ends_s - self._clock.monotonic()) > 0:
            yield from self.due()
            sleep(min(left_s, LONGEST_RECV_S))

    def _tell_outage(self, error: Exception) -> None:
        """Once for each outage."""
        if not self._is_outage_told:
            told = "can_bus_unavailable interface=%s channel=%s why=%r: trying until it answers"
            log.warning(told, self._can.interface, self._can.channel, str(error))
        self._is_outage_told = True


def _close(bus: Bus) -> None:
    try:
        bus.shutdown()
    except Exception as error:  # noqa: BLE001 - a bus that is gone cannot be closed either
        log.debug("can_bus_not_closed why=%r", str(error))


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ExtraMissingError(
            "The CAN source", name, "Install the extra: pip install 'living-twin[edge,can]'"
        ) from error
