"""INVARIANT 1: `kill -9` of running agents changes nothing in what a fleet leaves at the cloud.

Real processes, a real Mosquitto, kills at calls and times that a seed draws; the same code as
`python -m bench.edge --part kills`, which does a thousand. The checks themselves are checked first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.edge import kill_check, kill_real_cloud
from bench.edge.kill_check import Ending, problems_of_stream, problems_of_table
from bench.edge.kills import Effort, run
from bench.edge.made_up_car import SAMPLES, breaches, odometer_at, started_at, theta, trip_id
from demo.broker import PrivateBroker

TRIPS = 8
BREACHES = 3


@pytest.mark.xdist_group("faults")
def test_after_kills_at_calls_and_at_times_nothing_is_lost_and_nothing_came_twice(
    tmp_path: Path, mosquitto: PrivateBroker
) -> None:
    effort = Effort(tables=1, streams=1, kills_each=6)
    cars, problems = run(tmp_path, effort, seed=3)
    assert problems == {"lost": [], "twice": [], "wrong": []}
    assert sum(car.lives.tally.kills for car in cars) == effort.kills
    assert all(car.ending.trips for car in cars)
    phases = {phase for car in cars for phase in car.lives.tally.phases}
    assert shutil.which("strace") is None or any(phase.startswith("at ") for phase in phases)


@pytest.mark.xdist_group("faults")
def test_beside_the_real_service_every_trip_is_there_and_the_cars_run_its_revisions(
    tmp_path: Path, mosquitto: PrivateBroker
) -> None:
    cars, problems = kill_real_cloud.run(tmp_path, kills=8)
    assert problems == []
    assert sum(car.lives.tally.kills for car in cars) == 8
    assert all(car.ending.breaches and car.ending.newest for car in cars)


# ---- the checks ---------------------------------------------------------------------------------


def ending() -> Ending:
    """What a car leaves that drove TRIPS trips and was never killed."""
    trips: list[dict[str, Any]] = [
        {
            "trip_id": trip_id(number),
            "samples": SAMPLES,
            "refused_samples": 0,
            "partial": False,
            "breach": breaches(number),
            "started_at": started_at(number),
            "duration_s": 2760.0,
            "odometer_start": odometer_at(number),
            "odometer_end": odometer_at(number) + 150.0,
        }
        for number in range(TRIPS)
    ]
    found = Ending(
        trips=trips,
        breaches=[
            {"trip_id": trip["trip_id"], "odometer": trip["odometer_start"]}
            for trip in trips
            if trip["breach"]
        ],
        status={"revision": BREACHES, "theta": theta(BREACHES), "outbox_messages": 0},
    )
    found.contents.update(content["trip_id"] for content in trips)
    return found


def drop_a_trip(found: Ending) -> None:
    del found.trips[2]


def drop_a_breach(found: Ending) -> None:
    del found.breaches[1]


def a_second_content(found: Ending) -> None:
    found.contents["t000003"] += 1


def a_trip_nobody_drove(found: Ending) -> None:
    found.trips.append({**found.trips[-1], "trip_id": "20231114T221320Z-1000000"})


def half_a_trip(found: Ending) -> None:
    found.trips[4]["samples"] = SAMPLES // 2


def another_order(found: Ending) -> None:
    found.breaches.reverse()


def an_older_revision(found: Ending) -> None:
    found.status = {**found.status, "revision": BREACHES - 1}


def other_parameters(found: Ending) -> None:
    found.status = {**found.status, "theta": theta(BREACHES - 1)}


def something_unsent(found: Ending) -> None:
    found.status = {**found.status, "outbox_messages": 1}


SPOILT: dict[Callable[[Ending], None], tuple[str, str]] = {
    drop_a_trip: ("lost", "trip t000002 is lost"),
    drop_a_breach: ("lost", "t000004 is lost"),
    a_second_content: ("twice", "came twice"),
    a_trip_nobody_drove: ("wrong", "was never driven"),
    another_order: ("wrong", "in the order"),
    an_older_revision: ("wrong", "it runs revision 2, not 3"),
    other_parameters: ("wrong", "it runs ["),
    something_unsent: ("wrong", "still in its outbox"),
}


def test_a_car_that_was_never_killed_has_no_problems() -> None:
    none: dict[str, list[str]] = {"lost": [], "twice": [], "wrong": []}
    assert problems_of_table(ending(), TRIPS) == none
    assert problems_of_stream(ending(), TRIPS, set(range(TRIPS))) == none
    assert kill_check.differences(ending(), ending()) == []


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_whatever_is_not_as_it_was_driven_is_found(spoil: Callable[[Ending], None]) -> None:
    kind, sentence = SPOILT[spoil]
    spoilt = ending()
    spoil(spoilt)
    for found in (
        problems_of_table(spoilt, TRIPS),
        problems_of_stream(spoilt, TRIPS, set(range(TRIPS))),
    ):
        assert [one for one in found[kind] if sentence in one]


def test_half_a_trip_is_a_problem_of_a_table_and_none_of_a_stream() -> None:
    spoilt = ending()
    half_a_trip(spoilt)
    (sentence,) = problems_of_table(spoilt, TRIPS)["wrong"]
    assert "t000004 is not what was driven" in sentence
    assert problems_of_stream(spoilt, TRIPS, set())["wrong"] == []


@pytest.mark.parametrize(
    "spoil", [drop_a_trip, drop_a_breach, half_a_trip, another_order, an_older_revision]
)
def test_a_difference_to_the_car_that_was_never_killed_is_found(
    spoil: Callable[[Ending], None],
) -> None:
    spoilt = ending()
    spoil(spoilt)
    assert len(kill_check.differences(spoilt, ending())) == 1
