"""What if: scenarios of conditions and of planned trips, for one vehicle and for many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cloud.api.access import Context
from cloud.api.authority import Actor
from tests.cloud_doubles import Insides, problem, serving, write_bundle

ONE = "/api/v1/vehicles/a/what-if"
FLEET = "/api/v1/what-if"
HERE = {"distance_km": 40.0, "load_kg": 5200.0}


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """`a` has a revision, `b` nothing but a status, `c` a bundle that is not known here."""
    folder = tmp_path_factory.mktemp("what_if")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    a = inside.car("a")
    inside.take(a.trip(4), a.breach(4))
    inside.work()
    inside.take(inside.car("b").status(), inside.car("c").status(bundle="ee" * 32))
    yield inside
    inside.store.close()


def context_of(inside: Insides) -> Context:
    return Context(inside.store, inside.catalogue, lambda: inside.now, {})


@pytest.fixture(scope="module")
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(context_of(inside)) as client:
        client.timeout = httpx.Timeout(60.0)
        yield client


def ask(client: httpx.Client, *scenarios: dict[str, Any]) -> list[dict[str, Any]]:
    named = [{"name": str(index), **one} for index, one in enumerate(scenarios)]
    answer = client.post(ONE, json={"scenarios": named})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["outcomes"]
    return found


def test_conditions_tell_what_is_left_as_range_does(client: httpx.Client) -> None:
    [found] = ask(client, {"conditions": HERE})
    known = client.post("/api/v1/vehicles/a/range", json={"conditions": HERE}).json()
    assert found["remaining"] == known["remaining"]
    assert found["conditions"] == known["conditions"]
    assert (found["rows"], found["arrival"], found["arrives"]) == (None, None, None)


def test_a_trip_up_to_somewhere_tells_voltages_and_the_arrival(client: httpx.Client) -> None:
    near, far = ask(
        client,
        {"conditions": HERE, "until": 100, "points": 7},
        {"conditions": HERE, "until": 300},
    )
    volts = [row["voltage_v"] for row in near["rows"]]
    assert (len(volts), volts) == (7, sorted(volts, reverse=True))
    arrival = near["arrival"]
    assert arrival["voltage"] == near["rows"][-1]
    assert (near["arrives"], near["mean_crosses"]) == (True, None)
    assert arrival["remaining"]["value"] == pytest.approx(near["remaining"]["value"] - 60, abs=1)
    low, share, high = (arrival["charge"][one] for one in ("low", "value", "high"))
    assert 0 < low < share < high < 1
    left = arrival["remaining"]["value"]
    assert share == pytest.approx(left / (left + 100))
    assert far["arrives"] is False
    assert far["arrival_probability"] < 0.01
    crossed = far["mean_crosses"]["swept"] - 40
    assert crossed == pytest.approx(far["remaining"]["value"], rel=0.03)
    assert far["arrival"]["charge"]["value"] == 0


def test_rows_are_answered_as_a_planned_trip(client: httpx.Client) -> None:
    rows = [{"signals": {"distance_km": 10.0 * i, "load_kg": 5000.0}} for i in range(12)]
    [found] = ask(client, {"rows": rows})
    known = client.post("/api/v1/vehicles/a/planned-trip", json={"rows": rows}).json()
    assert found["rows"] == known["rows"]
    assert found["arrival_probability"] == known["arrival_probability"]
    assert found["arrival"]["remaining"]["value"] > 0


def test_a_heavier_load_leaves_less(client: httpx.Client) -> None:
    light, heavy = ask(
        client, *({"conditions": {"distance_km": 0, "load_kg": load}} for load in (3000, 8000))
    )
    assert heavy["remaining"]["value"] < light["remaining"]["value"]


@pytest.mark.parametrize(
    ("scenario", "where"),
    [
        ({"conditions": {"colour": 1.0}}, "body.scenarios.0.conditions.colour"),
        ({"conditions": {"distance_km": 900}}, "body.scenarios.0.conditions.distance_km"),
        ({"conditions": HERE, "until": 20}, "body.scenarios.0.until"),
        ({"rows": [{"signals": {"distance_km": 0}}]}, "body.scenarios.0.rows.0.load_kg"),
    ],
)
def test_a_question_without_an_answer_is_a_problem_with_its_place(
    client: httpx.Client, scenario: dict[str, Any], where: str
) -> None:
    answer = client.post(ONE, json={"scenarios": [{"name": "x", **scenario}]})
    assert problem(answer, 422)["violations"][0]["where"] == where


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"scenarios": [{"name": "x"}]}, "either conditions or rows"),
        ({"scenarios": []}, "at least 1"),
        (
            {"scenarios": [{"name": "x", "conditions": HERE, "until": 99, "points": 500}] * 17},
            "8192",
        ),
    ],
)
def test_a_request_is_bounded(client: httpx.Client, wanted: dict[str, Any], said: str) -> None:
    assert said in problem(client.post(ONE, json=wanted), 422)["detail"]


def test_a_fleet_has_one_item_for_each_vehicle(client: httpx.Client) -> None:
    scenarios = [{"name": "x", "conditions": HERE}]
    asked = {"vehicle_ids": ["b", "a", "c", "nobody"], "scenarios": scenarios}
    found = client.post(FLEET, json=asked).json()
    assert [one["vehicle_id"] for one in found["items"]] == ["b", "a", "c", "nobody"]
    assert [one["answer"] is None for one in found["items"]] == [False, False, True, True]
    assert found["items"][3]["problem"] == "There is no vehicle 'nobody'."
    [outcome] = found["items"][1]["answer"]["outcomes"]
    assert outcome["remaining"] == ask(client, {"conditions": HERE})[0]["remaining"]
    of_cohort = {"cohort": "default", "limit": 2, "scenarios": scenarios}
    found = client.post(FLEET, json=of_cohort).json()
    assert ([one["vehicle_id"] for one in found["items"]], found["more"]) == (["a", "b"], True)


def test_a_viewer_of_another_cohort_learns_nothing(inside: Insides) -> None:
    scenarios = [{"name": "x", "conditions": HERE}]
    with serving(context_of(inside), Actor("ann", "viewer", frozenset({"north"}))) as ann:
        problem(ann.post(ONE, json={"scenarios": scenarios}), 404)
        [item] = ann.post(FLEET, json={"vehicle_ids": ["a"], "scenarios": scenarios}).json()[
            "items"
        ]
        assert (item["answer"], item["problem"]) == (None, "There is no vehicle 'a'.")
        found = ann.post(FLEET, json={"cohort": "default", "scenarios": scenarios}).json()
        assert found == {"items": [], "more": False}
