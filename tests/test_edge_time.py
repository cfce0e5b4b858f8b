"""A computer without a clock of its own: it boots in the past, learns the time later, or never."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.bundle import Bundle
from common.messages import Acknowledgement, Status, TripSummary, decode, encode
from edge_agent.agent import Agent
from edge_agent.config import Limits
from edge_agent.mqtt.link import Connected, MqttLink
from edge_agent.samples import Sample
from edge_agent.sources.items import BadRow, Item
from edge_agent.sources.leaps import without_leaps
from edge_agent.storage import kept, outbox
from edge_agent.storage.state import State
from edge_agent.timekeeping import clock as clocks
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.clock import Clock
from edge_agent.timekeeping.timekeeper import KEPT_BOOTS, Timekeeper
from tests.support_edge import START, TRUST, VEHICLE, MemoryLink, aged_bundle, revision_for
from tests.support_edge import signed as signed_revision

HOUR = 3600.0
EVERY_S = 10.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("bundle"))


@dataclass
class Truth:
    """What really happened: when a trip began and ended, and in which boot."""

    boot: int
    began: float
    ended: float = 0.0
    samples: int = 0


@dataclass
class Car:
    """A car with its computer. `now` is the true time; `off_by` what the wall clock is wrong by."""

    path: Path
    bundle: Bundle
    off_by: float = -HOUR
    now: float = START
    booted: float = START - 20.0
    boot: int = 1
    is_set: bool = False
    odometer: float = 1000.0
    trips: list[Truth] = field(default_factory=list)
    refusals: list[Truth] = field(default_factory=list)
    boots_that_learnt: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """The agent's process begins."""
        self.link = MemoryLink()
        self.state = State(self.path, VEHICLE, self.bundle.sha256)
        clock = Clock(
            lambda: self.now + self.off_by,
            lambda: self.now - self.booted,
            lambda: self.is_set,
            lambda: f"boot-{self.boot}",
            START - 1000 * HOUR,
        )
        link = cast("MqttLink", self.link)
        self.agent = Agent(VEHICLE, self.bundle, TRUST, self.state, link, Limits(), clock)
        self.agent.driving.keep_trips()

    def restart(self) -> None:
        """The process ends and begins again; the computer runs on."""
        self.agent.driving.leave_trip()
        self.state.close()
        self.now += 2.0
        self.start()

    def reboot(self, off_by: float, away_s: float = 1000.0) -> None:
        """The power fails, and the computer comes back with another wrong idea of the time."""
        self.state.close()
        self.now += away_s
        self.booted, self.boot = self.now - 5.0, self.boot + 1
        self.off_by, self.is_set = off_by, False
        self.start()

    def sync(self) -> None:
        """A time source sets the clock."""
        self.off_by, self.is_set = 0.0, True
        self.wait(61.0)
        self.boots_that_learnt.add(self.boot)

    def turn_clock(self, seconds: float) -> None:
        """Somebody, or something, moves the wall clock without knowing the time."""
        self.off_by, self.is_set = self.off_by + seconds, False

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.agent.poll()

    def sample(self, trip_id: str | None = None) -> None:
        """One, stamped by the computer's own clock."""
        unix_s = self.now + self.off_by
        plain = Sample(unix_s, self.odometer, {"distance_km": 10.0, "load_kg": 500.0}, 3.5, trip_id)
        self.agent.take(plain.arrived_at(self.now - self.booted, unix_s))

    def drive(self, samples: int = 20, at: dict[int, Callable[[], None]] | None = None) -> None:
        """A trip with things that happen after some of its samples."""
        truth = Truth(self.boot, self.now, samples=samples)
        self.trips.append(truth)
        for number in range(samples):
            self.sample()
            truth.ended = self.now
            for happens in [at[number]] if at and number in at else []:
                happens()
            self.wait(EVERY_S)
            self.odometer += 0.01
        self.agent.driving.end_trip()

    def refuse(self) -> None:
        self.agent.take(BadRow("x", "no sample"))
        self.refusals.append(Truth(self.boot, self.now))

    def summaries(self) -> list[TripSummary]:
        """In the order in which they are sent."""
        rows = self.state.connection.execute(
            "SELECT payload FROM outbox WHERE kind = 'trip' ORDER BY seq"
        )
        return [decode(row[0], TripSummary) for row in rows]


@pytest.fixture
def car(tmp_path: Path, bundle: Bundle) -> Iterator[Car]:
    made = Car(tmp_path / "state.db", bundle)
    yield made
    made.state.close()


def check(car: Car) -> None:
    """Durations exact, order kept, every stamp right or marked, and right where it could be."""
    found = car.summaries()
    assert len(found) == len(car.trips)
    assert len({one.trip_id for one in found}) == len(found)
    assert [one.odometer_start for one in found] == sorted(one.odometer_start for one in found)
    for one, truth in zip(found, car.trips, strict=True):
        assert one.duration_s == pytest.approx(truth.ended - truth.began, abs=2e-3)
        assert one.samples == truth.samples
        assert one.time_known == (truth.boot in car.boots_that_learnt)
        if one.time_known:
            assert one.started_at == pytest.approx(truth.began, abs=2e-3)
    db = car.state.connection
    unknown = timekeeper.unknown(db, "refused")
    rows = db.execute("SELECT seq, at FROM refused ORDER BY seq").fetchall()
    for (seq, at), truth in zip(rows, car.refusals, strict=True):
        assert (str(seq) not in unknown) == (truth.boot in car.boots_that_learnt)
        if str(seq) not in unknown:
            assert at == pytest.approx(truth.began, abs=2e-3)


# ---- one thing at a time ------------------------------------------------------------------------


def test_a_trip_before_the_time_was_known_is_marked_and_then_put_right(car: Car) -> None:
    car.drive()
    (before,) = car.summaries()
    assert before.time_known is False
    assert before.started_at == pytest.approx(START - HOUR)
    car.sync()
    (after,) = car.summaries()
    assert after.time_known is True
    assert after.started_at == pytest.approx(START)
    assert (after.message_id, after.trip_id) == (before.message_id, before.trip_id)
    assert replace_time(after, before) == before


def replace_time(one: TripSummary, other: TripSummary) -> TripSummary:
    changed = json.loads(encode(one))
    changed |= {"started_at": other.started_at, "time_known": other.time_known}
    return decode(json.dumps(changed).encode(), TripSummary)


@pytest.mark.parametrize("jump", [5 * HOUR, -5 * HOUR, 9000 * HOUR])
def test_a_clock_that_is_set_in_mid_trip_neither_cuts_nor_bends_it(car: Car, jump: float) -> None:
    car.drive(40, {20: lambda: car.turn_clock(jump)})
    check(car)


def test_a_trip_that_began_unknown_and_ends_known_is_right(car: Car) -> None:
    car.drive(40, {20: car.sync})
    check(car)
    assert car.summaries()[0].time_known


def test_a_restart_in_mid_trip_goes_on_whatever_the_clock_has_done_meanwhile(car: Car) -> None:
    def restarted_with_another_time() -> None:
        car.turn_clock(-7 * HOUR)
        car.restart()
        car.turn_clock(3 * HOUR)

    car.drive(40, {20: restarted_with_another_time, 30: car.sync})
    check(car)
    assert kept.counters(car.state.connection) == {"trips_continued": 1}


def test_a_restarted_agent_still_knows_the_time_of_its_boot(car: Car) -> None:
    car.sync()
    car.turn_clock(-HOUR)
    car.restart()
    car.drive()
    check(car)


def test_what_an_earlier_boot_left_unknown_stays_marked(car: Car) -> None:
    car.drive()
    car.reboot(-2 * HOUR)
    car.drive()
    car.sync()
    assert [one.time_known for one in car.summaries()] == [False, True]
    check(car)


def test_two_boots_with_the_same_wrong_clock_and_odometer_make_two_trips(car: Car) -> None:
    for _boot in range(2):
        odometer, started = car.odometer, car.now + car.off_by
        car.drive()
        car.odometer = odometer
        car.reboot(0.0)
        car.off_by = started - car.now
    first, second = car.summaries()
    assert first.started_at == second.started_at
    assert first.odometer_start == second.odometer_start
    assert first.trip_id != second.trip_id
    assert kept.counters(car.state.connection) == {}


def test_a_trip_id_is_the_same_before_and_after_the_time_is_known(car: Car) -> None:
    car.drive(30, {15: car.sync})
    car.drive()
    unknown, known = (one.trip_id for one in car.summaries())
    assert unknown.split("-")[2] == "boot1"
    assert len(known.split("-")) == 2


def test_after_a_reboot_without_the_time_the_trip_of_before_is_closed_as_partial(
    car: Car, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        car.sample()
        car.wait(EVERY_S)
    car.reboot(-HOUR, away_s=30.0)
    with caplog.at_level("WARNING"):
        car.sample()
    assert [(one.partial, one.time_known) for one in car.summaries()] == [(True, False)]
    assert "its clock has not been set" in caplog.text


def test_after_a_reboot_with_the_time_known_on_both_sides_the_trip_goes_on(car: Car) -> None:
    car.sync()
    began = car.now
    for _ in range(20):
        car.sample()
        car.wait(EVERY_S)
    car.agent.driving.leave_trip()
    car.reboot(-HOUR, away_s=30.0)
    car.sync()
    for _ in range(5):
        car.sample()
        car.wait(EVERY_S)
    car.agent.driving.end_trip()
    (one,) = car.summaries()
    assert (one.samples, one.partial) == (25, False)
    assert one.duration_s == pytest.approx(car.now - EVERY_S - began, abs=2e-3)
    assert one.started_at == pytest.approx(began, abs=2e-3)


def test_a_verdict_is_stamped_like_everything_else(car: Car, bundle: Bundle) -> None:
    car.agent._receive("twin/v1/car-1/parameters", signed_revision(revision_for(bundle)))
    decided = car.now

    def answer() -> Acknowledgement:
        query = "SELECT payload FROM outbox WHERE kind = 'ack'"
        return decode(car.state.connection.execute(query).fetchone()[0], Acknowledgement)

    assert answer().time_known is False
    car.wait(100.0)
    car.sync()
    assert answer().time_known is True
    assert answer().decided_at == pytest.approx(decided)


def test_a_status_says_whether_the_time_is_known_and_comes_again_when_it_is(car: Car) -> None:
    car.link.events.append(Connected())
    car.agent.poll()
    car.sync()
    told = [decode(one, Status) for one in car.link.payloads("status")]
    assert [one.time_known for one in told] == [False, True]
    assert told[1].sent_at == pytest.approx(car.now)


def test_a_source_with_its_own_time_is_believed(car: Car) -> None:
    for number in range(20):
        theirs = Sample(
            START + 500 * HOUR + number,
            *(1000.0, {"distance_km": 10.0, "load_kg": 500.0}, 3.5),
        )
        car.agent.take(theirs.arrived_at(car.now - car.booted, car.now + car.off_by))
        car.wait(1.0)
    car.agent.driving.end_trip()
    (one,) = car.summaries()
    assert one.started_at == START + 500 * HOUR
    assert one.time_known is True


@pytest.mark.parametrize("leap", [HOUR, -HOUR])
@pytest.mark.parametrize("lasting", [1, 15])
def test_a_live_source_whose_own_clock_leaps_loses_no_sample(
    car: Car, leap: float, lasting: int
) -> None:
    for number in range(30):
        ran = leap if 10 <= number < 10 + lasting else 0.0
        theirs = Sample(
            START + 500 * HOUR + number + ran,
            *(1000.0, {"distance_km": 10.0, "load_kg": 500.0}, 3.5, "named"),
        )
        car.agent.take(theirs.arrived_at(car.now - car.booted, car.now + car.off_by))
        car.wait(1.0)
    car.agent.driving.end_trip()
    (one,) = car.summaries()
    assert (one.samples, one.refused_samples, one.duration_s) == (30, 0, 29.0)


def test_a_recorded_log_that_is_played_fast_keeps_its_own_time(car: Car) -> None:
    for number in range(30):
        theirs = Sample(
            START - 9000 * HOUR + 600.0 * number,
            *(1000.0, {"distance_km": 10.0, "load_kg": 500.0}, 3.5, "named"),
        )
        car.agent.take(theirs.arrived_at(car.now - car.booted, car.now + car.off_by))
        car.wait(0.001)
    car.agent.driving.end_trip()
    assert [one.duration_s for one in car.summaries()] == [29 * 600.0]


# ---- what is believed ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong_by", [-1001 * HOUR, -40 * HOUR])
def test_a_clock_that_claims_to_be_set_and_lies_before_the_past_is_not_believed(
    car: Car, wrong_by: float, caplog: pytest.LogCaptureFixture
) -> None:
    car.sync()
    car.drive()
    car.reboot(wrong_by)
    car.is_set = True
    with caplog.at_level("WARNING"):
        car.wait(5.0)
        car.wait(5.0)
    assert caplog.text.count("time_not_believed") == 1
    assert car.agent.status().time_known is False
    car.sync()
    assert car.agent.status().time_known is True


def test_a_disk_that_takes_nothing_when_the_time_comes_is_corrected_later(
    car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    car.drive()
    with monkeypatch.context() as full:
        full.setattr(timekeeper, "_correct", _full_disk)
        car.sync()
        assert car.summaries()[0].time_known is False
    car.wait(61.0)
    check(car)


def _full_disk(*_: object) -> int:
    raise sqlite3.OperationalError("database or disk is full")


def test_a_correction_is_whole_or_has_not_happened(
    car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        car.drive()
        car.refuse()
    calls: list[str] = []
    correct = timekeeper._correct_message

    def fails_at_the_second(*arguments: Any) -> None:
        calls.append(arguments[2])
        if len(calls) == 2:
            raise sqlite3.OperationalError("database or disk is full")
        correct(*arguments)

    with monkeypatch.context() as full:
        full.setattr(timekeeper, "_correct_message", fails_at_the_second)
        car.sync()
    assert not any(one.time_known for one in car.summaries())
    assert len(timekeeper.unknown(car.state.connection, "refused")) == 3
    car.restart()
    car.wait(1.5)
    check(car)


def test_marks_go_with_what_they_mark_and_boots_are_bounded(car: Car) -> None:
    car.drive()
    for _ in range(kept.KEPT_REFUSALS + 10):
        car.refuse()
    car.agent.say_goodbye()  # in a flood they are gathered
    db = car.state.connection
    assert len(timekeeper.unknown(db, "refused")) == kept.KEPT_REFUSALS
    assert len(timekeeper.unknown(db, "trip")) == 1
    with car.state.transaction():
        outbox.free(db, [car.summaries()[0].message_id])
    assert timekeeper.unknown(db, "trip") == set()
    assert timekeeper.unknown(db, "running") == set()
    for _ in range(KEPT_BOOTS + 10):
        car.reboot(0.0)
    assert car.state.connection.execute("SELECT COUNT(*) FROM boot").fetchone()[0] == KEPT_BOOTS
    assert car.agent._time.boot == KEPT_BOOTS + 11


def test_a_message_of_an_older_agent_says_that_its_time_is_known(car: Car) -> None:
    car.drive()
    old = json.loads(encode(car.summaries()[0]))
    del old["time_known"]
    assert decode(json.dumps(old).encode(), TripSummary).time_known is True


def test_a_state_of_an_older_agent_gets_the_tables(tmp_path: Path) -> None:
    state = State(tmp_path / "old.db", VEHICLE, "b")
    for name in ("stamp_of_message", "stamp_of_refusal", "stamp_of_trip"):
        state.connection.execute(f"DROP TRIGGER {name}")
    for name in ("boot", "stamp"):
        state.connection.execute(f"DROP TABLE {name}")
    state.close()
    again = State(tmp_path / "old.db", VEHICLE, "b")
    clock = Clock(lambda: START, lambda: 5.0)
    assert Timekeeper(again, clock).is_known
    again.close()


# ---- this computer ------------------------------------------------------------------------------


def test_the_kernel_is_asked_without_changing_anything() -> None:
    assert clocks._largest_error_us() >= -1
    assert isinstance(clocks.is_synchronised(), bool)
    assert clocks.SYSTEM.monotonic() > 0
    assert clocks.boot_id()


@pytest.mark.parametrize(
    ("error_us", "is_set"), [(-1, False), (0, True), (15_999_999, True), (16_000_000, False)]
)
def test_a_clock_is_set_when_the_kernel_knows_how_wrong_it_may_be(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error_us: int,
    is_set: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(clocks, "_largest_error_us", lambda: error_us)
    monkeypatch.setattr(clocks, "TIMESYNCD", tmp_path / "synchronized")
    assert clocks.is_synchronised() is is_set
    (tmp_path / "synchronized").touch()
    assert clocks.is_synchronised()


def test_without_the_kernels_name_each_process_is_a_boot(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(clocks, "BOOT_ID", tmp_path / "nothing")
    assert clocks.boot_id() != clocks.boot_id()


# ---- recorded tables ----------------------------------------------------------------------------


def at(time_s: float, trip_id: str | None = "a") -> Sample:
    return Sample(START + time_s, 0.0, {}, 4.0, trip_id)


def times_of(times: list[float]) -> tuple[list[float], int]:
    found = list(without_leaps(at(time_s) for time_s in times))
    kept_s = [one.time_s - START for one in found if isinstance(one, Sample)]
    return kept_s, sum(isinstance(one, BadRow) for one in found)


def test_one_sample_that_ran_ahead_costs_itself_alone() -> None:
    assert times_of([0, 1, 3600, 3, 4, 5]) == ([0, 1, 3, 4, 5], 1)
    assert times_of([0, 1, 2, 3]) == ([0, 1, 2, 3], 0)


def test_a_clock_that_was_set_back_is_no_leap() -> None:
    assert times_of([100, 101, 5, 6, 7]) == ([100, 101, 5, 6, 7], 0)


def test_two_trips_are_not_compared_and_nothing_is_lost_or_moved() -> None:
    items: list[Item] = [at(0), at(50), BadRow("x", "bad"), at(1, "b"), at(2, "b")]
    assert list(without_leaps(items)) == items


@given(st.lists(st.integers(0, 50), max_size=30))
def test_of_a_table_in_any_order_no_sample_disappears(times: list[int]) -> None:
    kept_s, bad = times_of([float(time_s) for time_s in times])
    assert len(kept_s) + bad == len(times)


# ---- anything may happen ------------------------------------------------------------------------

offsets = st.floats(-2e7, 2e7).map(lambda seconds: round(seconds, 3))
events = st.one_of(
    st.tuples(st.just("sync"), st.just(0.0)),
    st.tuples(st.just("turn"), offsets),
    st.tuples(st.just("restart"), st.just(0.0)),
    st.tuples(st.just("refuse"), st.just(0.0)),
)
steps = st.one_of(
    events,
    st.tuples(st.just("reboot"), offsets),
    st.tuples(
        st.just("drive"),
        st.tuples(st.integers(10, 25), st.dictionaries(st.integers(0, 20), events, max_size=3)),
    ),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.floats(-2e7, 0.0), st.lists(steps, max_size=10))
def test_whatever_happens_durations_are_exact_and_stamps_right_or_marked(
    bundle: Bundle, off_by: float, plan: list[tuple[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        car = Car(Path(folder) / "state.db", bundle, round(off_by, 3))
        for what, how in plan:
            carry_out(car, what, how)
            car.wait(70.0)
        check(car)
        car.state.close()


def carry_out(car: Car, what: str, how: Any) -> None:
    match what:
        case "sync":
            car.sync()
        case "turn":
            car.turn_clock(how)
        case "restart":
            car.restart()
        case "refuse":
            car.refuse()
        case "reboot":
            car.reboot(how)
        case "drive":
            count, happens = how
            inside: dict[int, Callable[[], None]] = {
                n: partial(carry_out, car, *event) for n, event in happens.items()
            }
            car.drive(count, inside)


def test_a_computer_that_sleeps_has_not_stood_still() -> None:
    """CLOCK_BOOTTIME is what /proc/uptime shows; CLOCK_MONOTONIC would leave the sleep out."""
    before = clocks.seconds_since_boot()
    shown = float(Path("/proc/uptime").read_text().split()[0])
    assert before - 0.011 <= shown <= clocks.seconds_since_boot() + 0.011
