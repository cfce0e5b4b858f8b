"""The plan of a roll-out and what is decided of it: pure, so that properties can be asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.rollout.deciding import COMMANDS, Halt, State, Tally, next_step
from cloud.rollout.plan import Plan, Rules, overlap, place, rises, stage_of

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
stages = st.lists(st.floats(0.01, 100), min_size=1, max_size=6, unique=True).map(sorted)
RULES = Rules(min_answers=10, min_trips=20, answers_within_s=1000.0)
PLAN = Plan(stages_percent=[1, 10, 100], soak_s=100.0, rules=RULES)
QUIET = Tally(ordered=50, answers=40, refused=0)


def step(tally: Tally, state: State = "soaking", stage: int = 0, **more: Any) -> Any:
    told: dict[str, Any] = {"plan": PLAN, "since": 0.0, "now": 200.0, "is_left": False} | more
    return next_step(state=state, stage=stage, tally=tally, **told)


@given(names, names)
def test_a_vehicles_place_is_a_pure_function_of_both_names(rollout: str, vehicle: str) -> None:
    assert 0.0 <= place(rollout, vehicle) < 100.0
    assert place(rollout, vehicle) == place(rollout, vehicle)


def test_places_stay_as_they_are_for_ever() -> None:
    """A restart or another machine must not move a vehicle into an earlier stage."""
    assert place("winter", "car-7") == pytest.approx(PLACE_OF_CAR_7, abs=0)


@given(stages, names, st.lists(names, max_size=30, unique=True))
def test_no_vehicle_comes_before_the_share_that_holds_it(
    percents: list[float], rollout: str, vehicles: list[str]
) -> None:
    plan = Plan(stages_percent=percents)
    for vehicle in vehicles:
        stage, at = stage_of(plan, rollout, vehicle), place(rollout, vehicle)
        if stage is None:
            assert at >= percents[-1]
        else:
            assert at < percents[stage]
            assert stage == 0 or at >= percents[stage - 1]


@pytest.mark.parametrize("rollout", ["winter", "spring-2", "x"])
def test_each_stage_has_its_share_of_a_fleet(rollout: str) -> None:
    plan = Plan(stages_percent=[1, 10, 50])
    found = [stage_of(plan, rollout, f"car-{i:05d}") for i in range(20_000)]
    for stage, share in ((0, 0.01), (1, 0.09), (2, 0.4), (None, 0.5)):
        sigma = (20_000 * share * (1 - share)) ** 0.5
        assert abs(found.count(stage) - 20_000 * share) < 4 * sigma


def test_another_roll_out_begins_with_other_vehicles() -> None:
    """So that it is not always the same ones that try what is new."""
    cars = [f"car-{i}" for i in range(2000)]
    first = {car for car in cars if place("one", car) < 10}
    second = {car for car in cars if place("two", car) < 10}
    assert len(first & second) < len(first) / 3


tallies = st.builds(
    lambda ordered, answered, refused, **more: Tally(
        ordered=ordered,
        answers=min(answered, ordered),
        refused=min(refused, answered, ordered),
        **more,
    ),
    st.integers(0, 100),
    st.integers(0, 100),
    st.integers(0, 100),
    trips=st.integers(0, 60),
    error_sum_v=st.floats(0, 5),
    old_trips=st.integers(0, 60),
    old_error_sum_v=st.floats(0, 5),
)


def broken(tally: Tally, soaked_s: float) -> set[str]:
    """The rules that are broken, said once more in the words of the documentation."""
    enough = min(RULES.min_answers, tally.ordered)
    found = set()
    if tally.answers >= max(enough, 1) and tally.refused > 0.05 * tally.answers:
        found.add("refusals")
    if tally.trips >= RULES.min_trips and tally.old_trips:
        new, old = tally.error_sum_v / tally.trips, tally.old_error_sum_v / tally.old_trips
        if new > 2.0 * old:
            found.add("errors")
    if tally.answers < enough and soaked_s > 1000.0:
        found.add("silence")
    return found


@given(tallies, st.floats(0, 2000))
def test_it_halts_exactly_when_a_rule_is_broken(tally: Tally, soaked_s: float) -> None:
    found = step(tally, now=soaked_s)
    expected = broken(tally, soaked_s)
    assert isinstance(found, Halt) == bool(expected)
    if isinstance(found, Halt):
        assert found.kind in expected


@given(tallies, st.floats(0, 2000))
def test_while_a_stage_is_ordered_only_enough_answers_count(tally: Tally, now: float) -> None:
    """The first one of the vehicles to refuse must not halt what has hardly begun."""
    found = step(tally, "running", now=now, is_left=True)
    if tally.answers < RULES.min_answers and tally.trips < RULES.min_trips:
        assert found == "order"


@given(tallies, st.floats(0, 1e9), st.sampled_from(COMMANDS["roll_back"][0][2:]))
def test_what_has_stopped_never_goes_on_by_itself(tally: Tally, now: float, state: State) -> None:
    for is_left in (True, False):
        assert step(tally, state, now=now, is_left=is_left) == "wait"


@given(tallies, st.floats(0, 2000), st.integers(0, 2))
def test_the_next_stage_waits_for_the_soak_and_for_answers(
    tally: Tally, soaked_s: float, stage: int
) -> None:
    if step(tally, stage=stage, now=soaked_s) in {"next_stage", "finish"}:
        assert soaked_s >= PLAN.soak_s
        assert tally.answers >= min(RULES.min_answers, tally.ordered)


def test_the_last_stage_finishes_and_the_others_go_on() -> None:
    assert step(QUIET, stage=1) == "next_stage"
    assert step(QUIET, stage=2) == "finish"
    assert step(QUIET, "running") == "soak"


def test_what_an_operator_has_seen_is_not_held_against_it_again() -> None:
    bad = replace(QUIET, refused=8)
    assert isinstance(step(bad), Halt)
    seen = replace(bad, seen_answers=40, seen_refused=8)
    assert step(seen) == "next_stage"
    again = replace(seen, ordered=60, answers=50, refused=10)
    assert isinstance(step(again), Halt)


def test_of_few_vehicles_all_are_enough() -> None:
    few = Tally(ordered=3, answers=2, refused=2)
    assert step(few) == "wait"
    found = step(replace(few, answers=3))
    assert isinstance(found, Halt)
    assert found.kind == "refusals"
    assert "2 of 3 vehicles" in found.why


def test_a_rule_that_is_off_halts_nothing() -> None:
    off = msgspec.structs.replace(
        RULES, refused_share=None, error_factor=None, answers_within_s=None
    )
    plan = msgspec.structs.replace(PLAN, rules=off)
    worst = Tally(ordered=50, answers=50, refused=50, trips=99, error_sum_v=99.0, old_trips=1)
    assert step(worst, plan=plan) == "next_stage"
    assert step(Tally(ordered=50), plan=plan, now=1e9) == "wait"


def test_overlapping_roll_outs_are_those_that_may_share_a_vehicle() -> None:
    def plan(*cohorts: str, old: str | None = None) -> Plan:
        return Plan(cohorts=list(cohorts), from_bundle=old, stages_percent=[100])

    assert overlap(plan(), plan("north"))
    assert overlap(plan("north", "south"), plan("south"))
    assert not overlap(plan("north"), plan("south"))
    assert not overlap(plan(old="a"), plan(old="b"))
    assert overlap(plan(old="a"), plan())


def test_stages_rise() -> None:
    assert rises([1, 10, 100])
    assert not rises([10, 10])


PLACE_OF_CAR_7 = 67.83257446410225
