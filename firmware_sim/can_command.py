"""`firmware-sim can` and `firmware-sim dbc`: a vehicle on a bus, and the DBC that describes it.

Must never load python-can before it is asked for.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from firmware_sim.can_faults import parse_fault
from firmware_sim.can_frames import DBC, Encoder
from firmware_sim.can_player import Played, frames, play, sender
from firmware_sim.can_vehicle import BusTrip, circuit_trips, published_trips, vehicle_index
from firmware_sim.errors import BusError, ExtraMissingError, SettingsError


@dataclass(frozen=True)
class PlaySettings:
    """Which vehicle, how fast, and what goes wrong."""

    vehicle: str
    is_circuit: bool
    first_trip: int
    trips: int
    seed: int
    speed_up: float
    pause_s: float
    faults: Sequence[str]


@dataclass(frozen=True)
class BusSettings:
    """Which bus, as python-can names it; `port` for UDP."""

    interface: str
    channel: str
    port: int | None


def dbc_text() -> str:
    """The sample DBC."""
    return DBC.read_text(encoding="utf-8")


def play_vehicle(settings: PlaySettings, where: BusSettings) -> dict[str, Any]:
    """Play it to its end. Raises SettingsError, ExtraMissingError, BusError."""
    if settings.speed_up <= 0:
        raise SettingsError("speed_up", settings.speed_up, "use a number above 0")
    faults = [parse_fault(text, Encoder().names) for text in settings.faults]
    trips = _trips(settings)
    planned = frames(trips, settings.speed_up, settings.pause_s, faults, settings.seed)
    can = _python_can()
    bus = _open(can, where)
    try:
        send = sender(bus, can.Message, can.CanError)
        sent, refused = play(planned, send, time.monotonic, time.sleep)
    finally:
        bus.shutdown()
    return {"vehicle": settings.vehicle, **asdict(Played(len(trips), sent, refused))}


def _trips(settings: PlaySettings) -> list[BusTrip]:
    trips = circuit_trips if settings.is_circuit else published_trips
    index = vehicle_index(settings.vehicle)
    return trips(index, settings.first_trip, settings.trips, settings.seed)


def _open(can: Any, where: BusSettings) -> Any:
    options = {} if where.port is None else {"port": where.port}
    try:
        return can.Bus(interface=where.interface, channel=where.channel, **options)
    except Exception as error:
        raise BusError(where.interface, where.channel, str(error)) from error


def _python_can() -> Any:
    try:
        return importlib.import_module("can")
    except ImportError as error:
        raise ExtraMissingError("python-can", "sim") from error
