"""When the car is on, by its ignition or by its motion: bouncing signals cut no trip in two."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import Trips, load_config
from edge_agent.errors import ConfigError
from edge_agent.samples import Sample
from edge_agent.trips.trip_detection import Switch, TripStep, seen, step, turned
from tests.support_edge import START

BY_MOTION = Trips(by="motion", on_after_s=5.0, off_after_s=60.0)


def ignition(time_s: float, on: bool | None) -> Sample:  # noqa: FBT001
    return Sample(START + time_s, 0.0, {}, 4.0, ignition=on)


def motion(time_s: float, current_a: float, speed_m_s: float) -> Sample:
    return Sample(START + time_s, 0.0, {"current_a": current_a, "speed_m_s": speed_m_s}, 4.0)


def states(samples: list[Sample], rule: Trips) -> list[bool | None]:
    switch: Switch | None = None
    found: list[bool | None] = []
    for sample in samples:
        switch = turned(switch, sample, rule)
        found.append(None if switch is None else switch.is_on)
    return found


def test_without_durations_the_ignition_is_taken_as_it_is() -> None:
    said = [True, True, False, True, None, False, None]
    samples = [ignition(i, on) for i, on in enumerate(said)]
    assert states(samples, Trips()) == [True, True, False, True, True, False, False]


def test_a_car_without_an_ignition_signal_is_neither_on_nor_off() -> None:
    assert states([ignition(0, None)], Trips()) == [None]
    assert seen(ignition(0, None), None).ignition is None


def test_an_ignition_that_bounces_ends_no_trip() -> None:
    said = [True, True, False, True, True, False, False, False]
    samples = [ignition(i, on) for i, on in enumerate(said)]
    rule = Trips(off_after_s=2.0)
    assert states(samples, rule) == [True] * 7 + [False]


def test_a_car_is_on_when_it_draws_current_or_moves_and_off_when_it_does_neither() -> None:
    samples = [
        motion(0, 0.0, 0.0),
        motion(10, 50.0, 0.0),
        motion(20, 50.0, 0.0),
        motion(30, 0.0, 5.0),
        motion(40, 0.0, 0.0),  # a red light
        motion(90, 0.0, 0.0),
        motion(95, 3.0, 0.5),  # between the thresholds: still what it was, and the wait is over
        motion(100, 0.0, 0.0),
        motion(159, 0.0, 0.0),
        motion(160, 0.0, 0.0),
    ]
    assert states(samples, BY_MOTION) == [False, False, *[True] * 7, False]


def test_a_charge_is_no_trip() -> None:
    assert not any(states([motion(i, -100.0, 0.0) for i in range(30)], BY_MOTION))


@pytest.mark.parametrize(
    "bad", [{}, {"current_a": 60.0}, {"current_a": float("nan")} | {"speed_m_s": 9.0}]
)
def test_a_sample_that_says_nothing_of_motion_changes_nothing(bad: dict[str, float]) -> None:
    running = Switch(is_on=True)
    assert turned(running, Sample(START, 0.0, bad, 4.0), BY_MOTION) == running


def test_durations_are_monotonic_where_the_sample_says_when_it_came() -> None:
    rule = Trips(off_after_s=10.0)
    jumped = [
        ignition(t, on).arrived_at(m)
        for t, m, on in [(0, 0, True), (1, 1, False), (9_999, 2, False), (10_000, 11, False)]
    ]
    assert states(jumped, rule) == [True, True, True, False]


def test_a_gap_is_monotonic_where_both_samples_say_when_they_came() -> None:
    before, jumped = ignition(0, None).arrived_at(0.0), ignition(9_999, None).arrived_at(1.0)
    assert step("run", before, jumped, 300.0) == TripStep(ends_running_trip=False, trip_id="run")


signals = st.tuples(st.floats(0.1, 20.0), st.floats(-200.0, 200.0), st.floats(0.0, 40.0))


@given(st.lists(signals, min_size=1, max_size=60), st.floats(0.0, 30.0), st.floats(0.0, 30.0))
def test_the_switch_never_turns_before_the_contrary_has_lasted(
    steps: list[tuple[float, float, float]], on_after_s: float, off_after_s: float
) -> None:
    rule = Trips(by="motion", on_after_s=on_after_s, off_after_s=off_after_s)
    times = list(itertools.accumulate(dt for dt, _, _ in steps))
    samples = [motion(t, a, v) for t, (_, a, v) in zip(times, steps, strict=True)]
    found = [False, *[bool(state) for state in states(samples, rule)]]
    for i, (before, after) in enumerate(itertools.pairwise(found)):
        if before == after:
            continue
        needed_s = rule.on_after_s if after else rule.off_after_s
        for time_s, (_, current_a, speed_m_s) in zip(times[: i + 1], steps[: i + 1], strict=True):
            if times[i] - time_s <= needed_s - 1e-6:
                driving = current_a >= rule.start_current_a or speed_m_s >= rule.start_speed_m_s
                resting = current_a <= rule.stop_current_a and speed_m_s <= rule.stop_speed_m_s
                assert driving if after else resting


@given(st.lists(signals, max_size=60))
def test_hysteresis_between_the_thresholds_nothing_turns(
    steps: list[tuple[float, float, float]],
) -> None:
    rule = Trips(by="motion")
    for is_on in (True, False):
        switch: Switch | None = Switch(is_on)
        for i, _ in enumerate(steps):
            switch = turned(switch, motion(i, 3.0, 0.5), rule)
        assert switch == Switch(is_on)


@given(st.lists(signals, min_size=1, max_size=60))
def test_a_driven_time_belongs_to_one_trip_and_samples_keep_their_order(
    steps: list[tuple[float, float, float]],
) -> None:
    switch, running, previous = None, None, None
    ids: list[str | None] = []
    for i, (_, current_a, speed_m_s) in enumerate(steps):
        raw = Sample(START + i, float(i), {"current_a": current_a, "speed_m_s": speed_m_s}, 4.0)
        switch = turned(switch, raw, Trips(by="motion"))
        sample = seen(raw, switch)
        found = step(running, previous, sample, 300.0)
        assert found.ends_running_trip == (running is not None and not switch.is_on)  # type: ignore[union-attr]
        running, previous = found.trip_id, sample
        ids.append(found.trip_id)
    runs = [trip for trip, _ in itertools.groupby(ids) if trip is not None]
    assert len(runs) == len(set(runs))


def test_thresholds_that_contradict_are_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    minimal = 'vehicle_id = "c"\nbundle = "b"\nstate = "s"\ntrusted_keys = ["k"]\n'
    path.write_text(minimal + "[trips]\nstop_current_a = 9.0\n")
    with pytest.raises(ConfigError, match=r"stop_… above its start_…"):
        load_config(path)
