"""Samples from a CAN bus: what is fresh becomes a sample, what is hostile is counted and named."""

from __future__ import annotations

import itertools
import math
import sys
import threading
from collections import Counter, deque
from pathlib import Path
from typing import Any

import can
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import CanCheck, CanSignal, Config, load_config
from edge_agent.errors import CanSetupError, ConfigError, ExtraMissingError
from edge_agent.samples import Sample
from edge_agent.sources import Item, Skipped, opened
from edge_agent.sources.can_frames import FrameReader, crc8
from edge_agent.sources.can_sampler import Sampler
from edge_agent.trips.trip_times import OurTimes, moment_s
from firmware_sim.can_frames import crc8 as crc8_of_the_car
from tests.support_can import (
    CAN,
    CHECKS,
    COLUMNS,
    DATABASE,
    MANIFEST,
    SIGNALS,
    Bench,
    Frame,
    MemoryBus,
)
from tests.support_edge import START


def samples(items: list[Item]) -> list[Sample]:
    return [item for item in items if isinstance(item, Sample)]


def skipped(source: Any) -> dict[str, int]:
    return dict(source._counts)


def reader(**changes: Any) -> FrameReader:
    return FrameReader(DATABASE, msgspec.structs.replace(CAN, **changes))


def test_a_healthy_bus_gives_one_sample_at_each_interval() -> None:
    bench = Bench()
    source = bench.source()
    found = bench.play(source, 5.0)
    assert [type(item) for item in found] == [Sample] * 5
    first = samples(found)[0]
    assert first.signals == {"load_kg": 500.0}
    assert (first.voltage_v, first.odometer, first.ignition) == (4.0, 1000.0, True)
    assert [s.time_s - START for s in samples(found)] == pytest.approx([1, 2, 3, 4, 5])
    assert [s.monotonic_s for s in samples(found)] == pytest.approx([1, 2, 3, 4, 5])
    assert skipped(source) == {}


def test_scale_and_offset_make_the_agents_unit_of_the_cars() -> None:
    signals = SIGNALS | {
        "voltage_v": CanSignal("PackVoltage", scale=1 / 96),
        "load_kg": CanSignal("Load", scale=2.0, offset=-10.0),
    }
    bench = Bench()
    (sample,) = samples(bench.play(bench.source(signals=signals), 1.0))
    assert (sample.voltage_v, sample.signals["load_kg"]) == (4.0, 990.0)


def test_a_page_of_a_multiplexed_message_brings_its_own_signals_only() -> None:
    found = reader(signals={"t": CanSignal("CellTemperatureMean")}, checks={})
    bench = Bench()
    pages = [bench.message("BMS_Temperatures") for _ in range(2)]
    readings = [found.read((258, False), page.data, 0.0) for page in pages]
    assert [reading.values for reading in readings] == [{}, {"t": 25.0}]
    assert [reading.troubles for reading in readings] == [[], []]


@pytest.mark.parametrize(
    ("message", "name"), [("BMS_Cells", "voltage_v"), ("Vehicle_Load", "load_kg")]
)
def test_a_signal_that_stays_away_is_named_once_and_never_reused(message: str, name: str) -> None:
    bench = Bench()
    source = bench.source()
    assert len(samples(bench.play(source, 3.0))) == 3
    lost = samples(bench.play(source, 9.0, without=message))
    assert len(lost) <= 2  # until it is older than stale_s
    assert skipped(source)[f"can_stale:{name}"] == 1
    assert skipped(source)["can_no_sample"] >= 7
    assert len(samples(bench.play(source, 3.0))) == 3


def test_an_ignition_that_stays_away_is_unknown_and_not_the_one_before() -> None:
    signals = SIGNALS | {
        "ignition": CanSignal("Ignition"),
        "odometer": CanSignal("Load", offset=1000.0),
    }
    bench = Bench()
    source = bench.source(signals=signals)
    bench.play(source, 1.0)
    found = samples(bench.play(source, 5.0, without="Vehicle_Motion"))
    assert [sample.ignition for sample in found] == [True, None, None, None, None]
    assert skipped(source) == {"can_stale:ignition": 1}


def test_a_signal_that_never_comes_is_named() -> None:
    bench = Bench()
    source = bench.source()
    assert samples(bench.play(source, 5.0, without="Vehicle_Load")) == []
    assert skipped(source)["can_stale:load_kg"] == 1


@given(
    st.lists(st.tuples(st.floats(0.01, 2.0), st.sampled_from(["a", "b", ""])), max_size=60),
    st.floats(0.1, 5.0),
)
def test_no_value_is_ever_used_beyond_its_age(
    steps: list[tuple[float, str]], limit_s: float
) -> None:
    sampler, now_s = Sampler({"a": limit_s, "b": limit_s}, ["a", "b"], 0.0), 0.0
    came: dict[str, float] = {}
    for step_s, name in steps:
        now_s += step_s
        if name:
            sampler.take({name: now_s}, now_s)
            came[name] = now_s
        moment = sampler.moment(now_s)
        fresh = {n: t for n, t in came.items() if now_s - t <= limit_s}
        assert moment.values == fresh
        assert set(moment.missing) == {"a", "b"} - set(fresh)


@pytest.mark.parametrize(
    ("frame", "name"),
    [
        (Frame(0x123, bytes(8)), "can_unknown_id"),
        (Frame(257, bytes(6), is_extended_id=True), "can_unknown_id"),
        (Frame(257, bytes(5)), "can_wrong_length:BMS_Cells"),
        (Frame(257, bytes(7)), "can_wrong_length:BMS_Cells"),
        (Frame(257, b""), "can_wrong_length:BMS_Cells"),
        (Frame(513, b"\x00\x00\xc0\x7f"), "can_not_a_number:load_kg"),
        (Frame(513, b"\x00\x00\x80\x7f"), "can_not_a_number:load_kg"),
        (Frame(513, b"\x00\x00\x80\xbf"), "can_out_of_range:load_kg"),
        (Frame(257, b"\xff" * 6), "can_out_of_range:voltage_v"),
        (Frame(512, bytes(8)), "can_bad_crc:Vehicle_Motion"),
        (Frame(257, bytes(6), is_error_frame=True), "can_error_frame"),
        (Frame(257, bytes(6), is_remote_frame=True), "can_error_frame"),
    ],
)
def test_a_hostile_frame_is_counted_shown_once_and_skipped(frame: Frame, name: str) -> None:
    bench = Bench()
    source = bench.source()
    bench.play(source, 1.0)
    source.frame(frame)
    source.frame(frame)
    assert skipped(source) == {name: 2}
    report = [item for item in bench.play(source, 31.0) if isinstance(item, Skipped)]
    assert [item.counts for item in report] == [{name: 2}]
    (example,) = report[0].examples
    assert (
        example.text.startswith(f"{frame.arbitration_id:X}#")
        or frame.is_error_frame
        or (frame.is_remote_frame)
    )
    source.frame(frame)
    later = [item for item in bench.play(source, 31.0) if isinstance(item, Skipped)]
    assert [(item.counts, item.examples) for item in later] == [({name: 1}, ())]


def test_a_value_that_is_out_of_range_is_not_taken_and_the_old_one_ages() -> None:
    bench = Bench()
    source = bench.source()
    bench.play(source, 1.0)
    found: list[Item] = []
    for _ in range(50):
        for item in bench.everything():
            source.frame(Frame(513, b"\x00\x00\xc0\x7f") if item.arbitration_id == 513 else item)
        bench.now += 0.1
        found += source.due()
    assert 1 <= len(samples(found)) <= 2
    assert skipped(source)["can_stale:load_kg"] == 1


@given(
    st.integers(0, 0x1FFFFFFF) | st.sampled_from([256, 257, 258, 512, 513]),
    st.booleans(),
    st.binary(max_size=64),
)
def test_no_frame_stops_the_reader(identifier: int, extended: bool, data: bytes) -> None:  # noqa: FBT001
    reading = reader().read((identifier, extended), data, 0.0)
    for value in reading.values.values():
        assert math.isfinite(value)


@pytest.mark.parametrize("flipped", range(64))
def test_each_flipped_bit_of_a_checked_frame_is_noticed(flipped: int) -> None:
    bench = Bench()
    data = bytearray(bench.message("Vehicle_Motion").data)
    data[flipped // 8] ^= 1 << flipped % 8
    reading = reader().read((512, False), bytes(data), 0.0)
    assert [trouble.name for trouble in reading.troubles] == ["can_bad_crc:Vehicle_Motion"]
    assert reading.values == {}


def test_the_checksum_is_the_published_one() -> None:
    # The check value of CRC-8/SAE-J1850 in the catalogue of parametrised CRC algorithms.
    assert crc8(b"123456789") == crc8_of_the_car(b"123456789") == 0x4B


def counted(counters: list[int], every_s: float = 0.1) -> list[str]:
    """What becomes of frames with these counters."""
    found, names = reader(), []
    message = DATABASE.get_message_by_name("Vehicle_Motion")
    for i, counter in enumerate(counters):
        values = {
            "MotionCounter": counter,
            "Speed": 0,
            "Ignition": 1,
            "Odometer": i,
            "MotionCrc": 0,
        }
        data = message.encode(values)
        reading = found.read((512, False), data[:-1] + bytes([crc8(data[:-1])]), i * every_s)
        taken = "taken" if reading.values else "refused"
        names.append(" ".join([taken, *(t.name.split(":")[0] for t in reading.troubles)]))
    return names


def test_a_counter_that_stands_still_or_goes_back_is_not_believed() -> None:
    assert counted([14, 15, 0, 0, 1]) == ["taken"] * 3 + ["refused can_repeated", "taken"]
    assert counted([3, 4, 9, 8, 10]) == [
        "taken",
        "taken",
        "taken can_lost_before",
        "refused can_late",
        "taken",
    ]
    assert counted([4, 4], every_s=3.0) == ["taken", "taken"]  # a silence: any is a beginning
    assert counted([7] * 30).count("taken") == 2  # one that stands still is stale in between


@given(st.lists(st.integers(0, 15), min_size=60, max_size=120))
def test_whatever_the_counters_say_frames_are_believed_again_within_the_limit(
    counters: list[int],
) -> None:
    taken = [i for i, name in enumerate(counted(counters)) if name.startswith("taken")]
    assert max(b - a for a, b in itertools.pairwise([*taken, len(counters) - 1])) <= 22


def items_of(bench: Bench, source: Any, buses: list[Any], *, seconds: float) -> list[Item]:
    """What the source yields in so many seconds, with these buses one after the other."""
    waiting, found = deque(buses), []

    def open_bus() -> Any:
        bus = waiting.popleft() if waiting else MemoryBus(bench, deque())
        if isinstance(bus, Exception):
            raise bus
        return bus

    def sleep(wait_s: float) -> None:
        bench.now += wait_s

    stop_s = bench.now + seconds
    for item in source.items(open_bus, sleep):
        found.append(item)
        if bench.now >= stop_s:
            break
    return found


def test_the_bus_drops_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    source = bench.source(stale_s=1000.0)
    buses = [
        OSError(19, "No such device"),
        MemoryBus(bench, deque(bench.everything()), fails=True),
        OSError(100, "Network is down"),
        OSError(100, "Network is down"),
        MemoryBus(bench, deque(bench.everything())),
    ]
    found = items_of(bench, source, buses, seconds=60.0)
    assert buses[1].is_shut  # type: ignore[attr-defined]
    assert not buses[4].waiting  # type: ignore[attr-defined]
    counts: Counter[str] = Counter()
    for item in found:
        if isinstance(item, Skipped):
            counts.update(item.counts)
    assert counts["can_bus_lost"] == 1
    assert samples(found)
    assert caplog.text.count("can_bus_unavailable") == 2  # once for each outage


def test_reconnecting_backs_off_and_never_gives_up() -> None:
    bench = Bench()
    tried: list[float] = []

    def open_bus() -> Any:
        tried.append(bench.now)
        raise OSError(19, "No such device")

    def sleep(wait_s: float) -> None:
        bench.now += wait_s

    source = bench.source()
    for _ in itertools.takewhile(lambda _: bench.now < 300, source.items(open_bus, sleep)):
        pass
    waits = [b - a for a, b in itertools.pairwise(tried)]
    assert waits[:5] == pytest.approx([0.5, 1.0, 2.0, 4.0, 8.0])
    assert max(waits) == pytest.approx(30.0)
    assert waits[-1] == pytest.approx(30.0)


def test_a_babbling_node_costs_bounded_work_and_the_kernel_is_asked_to_drop_it() -> None:
    bench = Bench()
    source = bench.source(frames_per_s=100, interface="socketcan")
    bus = MemoryBus(bench, deque(Frame(0x7FF, bytes(8)) for _ in range(100_000)))
    items_of(bench, source, [bus], seconds=20.0)
    assert 99 * bench.now <= bus.received <= 101 * bench.now
    assert {one["can_id"] for one in bus.filters} == {256, 257, 512, 513}


def test_a_clock_that_is_set_during_a_trip_does_not_bend_its_time() -> None:
    bench = Bench()
    source = bench.source()
    before = samples(bench.play(source, 3.0))
    bench.unix_ahead += 1e6
    after = samples(bench.play(source, 3.0))
    trip = OurTimes(before[0].time_s, moment_s(before[0]))
    timed = [trip.timed(sample) for sample in [*before, *after]]
    steps = [b.time_s - a.time_s for a, b in itertools.pairwise(timed)]
    assert steps == pytest.approx([1.0] * 5)


def test_the_cars_own_clock_is_taken_where_it_is_mapped() -> None:
    bench = Bench()
    source = bench.source(signals=SIGNALS | {"time_s": CanSignal("UnixTime", offset=5.0)})
    (sample,) = samples(bench.play(source, 1.0))
    assert sample.time_s == START + 5.0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"signals": {n: s for n, s in SIGNALS.items() if n != "load_kg"}}, "where load_kg stands"),
        ({"signals": SIGNALS | {"x": CanSignal("Nothing")}}, "the DBC has no signal Nothing"),
        (
            {"signals": SIGNALS | {"x": CanSignal("Load", "BMS_Pack")}},
            "BMS_Pack has no signal Load",
        ),
        ({"signals": SIGNALS | {"x": CanSignal("Load", "BMS")}}, "no message BMS"),
        ({"checks": {"BMS_Pack": CanCheck("Count")}}, "no signal Count"),
        ({"checks": {"BMS_Cells": CanCheck("", "CellVoltageMin")}}, "no byte of its own"),
    ],
)
def test_a_map_that_does_not_fit_the_dbc_is_said_before_the_start(
    changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(CanSetupError, match=problem):
        Bench().source(**changes)


def config_with(tmp_path: Path, **changes: Any) -> Config:
    source = msgspec.structs.replace(COLUMNS, can=msgspec.structs.replace(CAN, **changes))
    return Config(
        vehicle_id="c", bundle="b", state="s", trusted_keys=["k"], source=source, base=str(tmp_path)
    )


@pytest.mark.parametrize("library", ["can", "cantools"])
def test_without_the_extra_the_agent_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ExtraMissingError, match=rf"needs {library}.*pip install 'living-twin"):
        opened(config_with(tmp_path), MANIFEST)


@pytest.mark.parametrize("content", [None, "no DBC at all", "BO_ x"])
def test_a_file_that_is_no_dbc_is_a_setup_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "x.dbc").write_text(content)
    with pytest.raises(CanSetupError, match=r"x\.dbc is no DBC"):
        opened(config_with(tmp_path, dbc="x.dbc"), MANIFEST)


def test_an_interface_that_nobody_knows_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(CanSetupError, match="knows no interface 'socketcam'"):
        opened(config_with(tmp_path, interface="socketcam"), MANIFEST)


def test_a_can_source_without_its_table_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(
        'vehicle_id = "c"\nbundle = "b"\nstate = "s"\ntrusted_keys = ["k"]\n'
        '[source]\nkind = "can"\n'
    )
    with pytest.raises(ConfigError, match=r"no \[source.can\]"):
        load_config(path)


def test_frames_of_python_cans_virtual_bus_become_samples(tmp_path: Path) -> None:
    channel = f"twin-{tmp_path.name}"
    config = config_with(
        tmp_path, interface="virtual", channel=channel, interval_s=0.05, stale_s=60.0
    )
    bench = Bench()
    items = opened(config, MANIFEST)
    with can.Bus(interface="virtual", channel=channel) as car:

        def send() -> None:
            for frame in bench.everything():
                car.send(
                    can.Message(
                        arbitration_id=frame.arbitration_id, data=frame.data, is_extended_id=False
                    )
                )

        # The bus opens when the source is first asked; its frames wait there from then on.
        source = iter(items)
        sending = threading.Event()

        def send_until_told() -> None:
            while not sending.wait(0.02):
                send()

        thread = threading.Thread(target=send_until_told)
        thread.start()
        try:
            sample = next(item for item in source if isinstance(item, Sample))
        finally:
            sending.set()
            thread.join()
            source.close()  # type: ignore[attr-defined]
    assert (sample.voltage_v, sample.odometer) == (4.0, 1000.0)


def test_the_checks_and_signals_of_the_sample_dbc_fit_it() -> None:
    assert reader(checks=CHECKS).identifiers()[:1] == [(257, False)]
