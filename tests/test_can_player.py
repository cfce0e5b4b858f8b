"""What firmware-sim plays onto a bus: seeded, at its rates, with the faults that were asked for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import cantools
import numpy as np
import pytest

from firmware_sim.can_faults import BABBLED_PER_S, Fault, FaultKind, parse_fault
from firmware_sim.can_frames import DBC
from firmware_sim.can_player import Frame, frames, play
from firmware_sim.can_vehicle import BusTrip, circuit_trips, published_trips, vehicle_index
from firmware_sim.errors import SettingsError
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

DATABASE: Any = cantools.database.load_file(DBC)
PACK, MOTION, LOAD, CLOCK = 256, 512, 513, 514
SPEED_UP = 3600.0


@pytest.fixture(scope="module")
def trips() -> list[BusTrip]:
    return published_trips(1, 3, 1, 7)


def played(trips: list[BusTrip], *faults: Fault, seed: int = 1) -> list[Frame]:
    return list(frames(trips, SPEED_UP, 1.0, faults, seed))


def of(frames_: list[Frame], identifier: int) -> list[Frame]:
    return [frame for frame in frames_ if frame.identifier == identifier]


def fault(kind: FaultKind, message: str = "", start_s: float = 1.0, end_s: float = 2.0) -> Fault:
    return Fault(kind, message, start_s, end_s)


def test_the_same_seed_plays_the_same_frames(trips: list[BusTrip]) -> None:
    faults = (fault(FaultKind.FLIP), fault(FaultKind.BABBLE))
    assert played(trips, *faults) == played(trips, *faults)
    assert played(trips, *faults) != played(trips, *faults, seed=2)


def test_messages_come_at_their_own_rates_in_the_order_of_time(trips: list[BusTrip]) -> None:
    found = played(trips)
    assert [frame.time_s for frame in found] == sorted(frame.time_s for frame in found)
    steps = {i: np.diff([f.time_s for f in of(found, i)]) for i in (PACK, MOTION, LOAD)}
    assert steps[PACK] == pytest.approx(0.1)
    assert steps[LOAD] == pytest.approx(0.5)


def test_the_bus_says_what_the_fleets_bms_measured(trips: list[BusTrip]) -> None:
    fleet = simulate_fleet(FleetSettings(2, 3, 7))
    found = [DATABASE.decode_message(f.identifier, f.data) for f in played(trips)]
    driven = [values for values in found if "Odometer" in values and values["Ignition"] == 1]
    way = driven[-1]["Odometer"] - driven[0]["Odometer"]
    assert way == pytest.approx(fleet.trips.distance_km[1, 2], rel=0.03)
    assert driven[0]["Odometer"] == pytest.approx(fleet.trips.odometer_start_km[1, 2], abs=0.01)
    volts = [values["PackVoltage"] / 96 for values in found if "PackVoltage" in values]
    assert volts[0] == pytest.approx(fleet.samples.voltage_v[1, 2, 0], abs=2e-4)
    clock = [values["UnixTime"] for values in found if "UnixTime" in values]
    assert clock[0] == pytest.approx(fleet.trips.started_at_s[1, 2])
    assert clock[1] - clock[0] == pytest.approx(0.1 * SPEED_UP)


def test_after_a_trip_the_ignition_is_off_for_the_pause(trips: list[BusTrip]) -> None:
    motion = [DATABASE.decode_message(MOTION, f.data) for f in of(played(trips), MOTION)]
    ignition = [int(values["Ignition"]) for values in motion]
    assert ignition == [1] * (len(ignition) - 10) + [0] * 10


def test_a_car_with_equivalent_circuit_cells_is_played_too() -> None:
    (trip,) = circuit_trips(0, 1, 1, 3)
    start = trip.at(0.0)
    assert 3.0 < start["CellVoltageMean"] < 4.3
    assert start["PackVoltage"] == pytest.approx(96 * start["CellVoltageMean"])
    assert list(frames([trip], 600.0, 0.0, (), 1))


def test_a_dropped_message_is_missing_for_as_long_as_was_asked(trips: list[BusTrip]) -> None:
    found = played(trips, fault(FaultKind.DROP, "BMS_Pack"))
    times = [frame.time_s for frame in of(found, PACK)]
    assert not [t for t in times if 1.0 <= t < 2.0]
    assert len(of(found, MOTION)) == len(times) + 10


def test_a_stuck_signal_stands_still_while_its_counter_runs(trips: list[BusTrip]) -> None:
    found = played(trips, fault(FaultKind.STUCK, "Vehicle_Motion"))
    stuck = [f for f in of(found, MOTION) if 1.0 <= f.time_s < 2.0]
    values = [DATABASE.decode_message(MOTION, f.data) for f in stuck]
    assert len({v["Odometer"] for v in values}) == 1
    assert len({v["MotionCounter"] for v in values}) == len(values) == 10


def test_a_flipped_frame_differs_in_one_bit(trips: list[BusTrip]) -> None:
    whole, broken = played(trips), played(trips, fault(FaultKind.FLIP, "BMS_Pack"))
    bits = [
        (int.from_bytes(a.data) ^ int.from_bytes(b.data)).bit_count()
        for a, b in zip(whole, broken, strict=True)
    ]
    assert Counter(bits) == {0: len(bits) - 10, 1: 10}


def test_a_late_frame_comes_behind_newer_ones(trips: list[BusTrip]) -> None:
    found = of(played(trips, fault(FaultKind.LATE, "BMS_Pack")), PACK)
    counters = [int(DATABASE.decode_message(PACK, f.data)["PackCounter"]) for f in found]
    assert counters != [i % 16 for i in range(len(counters))]
    assert Counter(counters) == Counter(i % 16 for i in range(len(counters)))


def test_a_babbling_node_fills_the_bus_with_identifiers_that_nobody_knows(
    trips: list[BusTrip],
) -> None:
    known = {message.frame_id for message in DATABASE.messages}
    strange = [f for f in played(trips, fault(FaultKind.BABBLE)) if f.identifier not in known]
    assert len(strange) == BABBLED_PER_S
    assert all(1.0 <= frame.time_s < 2.0 for frame in strange)


def test_frames_are_sent_when_their_time_has_come_and_a_refusal_is_counted() -> None:
    now, sent = [0.0], []

    def sleep(seconds: float) -> None:
        now[0] += seconds

    def send(frame: Frame) -> None:
        sent.append(now[0])
        if frame.number == 2:
            raise OSError("the bus is full")

    planned = [Frame(0.1 * i, i, 1, b"") for i in range(4)]
    assert play(planned, send, lambda: now[0], sleep) == (3, 1)
    assert sent == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_fault_is_written_as_kind_message_and_time() -> None:
    assert parse_fault("drop:BMS_Pack@10..20.5", ["BMS_Pack"]) == Fault(
        FaultKind.DROP, "BMS_Pack", 10.0, 20.5
    )
    assert parse_fault("babble@0..1", []) == Fault(FaultKind.BABBLE, "", 0.0, 1.0)


@pytest.mark.parametrize(
    "text", ["", "melt@1..2", "drop@2..1", "drop@1", "drop:No@1..2", "drop@a..b"]
)
def test_what_is_no_fault_is_a_usage_error(text: str) -> None:
    with pytest.raises(SettingsError, match="fault"):
        parse_fault(text, ["BMS_Pack"])


@pytest.mark.parametrize("name", ["", "V", "V0", "X001", "V-1", "V1000"])
def test_what_is_no_vehicle_is_a_usage_error(name: str) -> None:
    with pytest.raises(SettingsError, match="V001 to V999"):
        vehicle_index(name)
