"""A vehicle's past through the API: traces, parameters over revisions, differences, the summary."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest

from cloud.api.access import Context
from cloud.intake.interpretation import Delivery
from cloud.store import histories
from cloud.store.event_tables import Event
from cloud.store.events import add
from common import calibration
from common.revision import decode_revision
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle

V1 = "/api/v1"
A = f"{V1}/vehicles/a"
HISTORY = f"{A}/parameters/gain_distance"
LATER = datetime.fromtimestamp(NOW + 1, UTC).isoformat()


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """`a` with twelve trips and six revisions (the last refused), `b` with two, `c` foreign."""
    folder = tmp_path_factory.mktemp("history")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    a, b = inside.car("a"), inside.car("b")
    inside.take(*(a.trip(n, breach=n % 2 == 0, started_at=NOW - n) for n in range(1, 13)))
    inside.take(a.status(), b.status(), inside.car("c").status(bundle="ee" * 32))
    for trip in (2, 4, 6, 8, 10, 12):
        inside.take(a.breach(trip))
        inside.work()
        verdict = "refused" if trip == 12 else "applied"
        inside.take(a.acknowledgement(inside.rows("a")[-1], verdict))
    for trip in (1, 2):
        inside.take(b.breach(trip))
        inside.work()
    inside.take(a.breach(3))  # too late: declined
    inside.work()
    inside.take(*(Delivery("twin/v1/b/trip", f"no {i}".encode(), mid=i) for i in range(2)))
    inside.take(Delivery("elsewhere", b"garbage", mid=1))
    yield inside
    inside.store.close()


@pytest.fixture(scope="module")
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(Context(inside.store, inside.catalogue, lambda: NOW, {})) as client:
        yield client


def got(client: httpx.Client, path: str, **params: Any) -> Any:
    response = client.get(path, params=params)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"breach": "true"}, [12, 10, 8, 6, 4, 2]),
        ({"breach": "false", "odometer__gte": 8000}, [11, 9]),
        ({"odometer__lt": 3000}, [2, 1]),
        ({"from": datetime.fromtimestamp(NOW - 3, UTC).isoformat()}, [3, 2, 1]),
        ({"to": datetime.fromtimestamp(NOW - 10, UTC).isoformat()}, [12, 11]),
        ({"from": LATER}, []),
    ],
)
def test_trips_are_filtered_by_time_odometer_and_breach(
    client: httpx.Client, params: dict[str, Any], expected: list[int]
) -> None:
    found = [trip["trip_id"] for trip in got(client, f"{A}/trips", **params)["items"]]
    assert found == [f"trip{number}" for number in expected]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"verdict": "refused"}, [6]),
        ({"verdict": "applied", "limit": 2}, [5, 4]),
        ({"verdict": "none"}, []),
        ({"kind": "breach", "verdict": "refused"}, [6]),
        ({"kind": "roll_back"}, []),
    ],
)
def test_revisions_are_filtered_by_kind_and_verdict(
    client: httpx.Client, params: dict[str, Any], expected: list[int]
) -> None:
    found = [one["number"] for one in got(client, f"{A}/revisions", **params)["items"]]
    assert found == expected


def test_a_time_without_a_zone_is_refused(client: httpx.Client) -> None:
    found = problem(client.get(f"{A}/trips", params={"from": "2026-01-01T00:00:00"}), 422)
    assert found["violations"][0]["where"] == "query.from"


def test_a_trace_shows_what_was_measured_and_predicted_before_and_after(
    client: httpx.Client, inside: Insides
) -> None:
    trace = got(client, f"{A}/trips/trip8/trace")
    assert (trace["outcome"], trace["recalibrated_revision"], trace["odometer"]) == (
        "calibrated",
        4,
        8000.0,
    )
    assert trace["recalibrated_error_v"] < trace["predicted_error_v"]
    measured = inside.car("a").trace(8000.0).voltage_v
    points = trace["points"]
    assert [p["measured_v"] for p in points] == pytest.approx(measured, abs=1e-5)
    assert points[0]["features"] == {"distance_km": 0.0, "load_kg": 5100.0}
    inside_band = [
        p["recalibrated"]["band95_lower_v"]
        <= p["measured_v"]
        <= p["recalibrated"]["band95_upper_v"]
        for p in points
    ]
    assert np.mean(inside_band) > 0.85


def test_a_trace_of_a_breach_that_was_declined_says_why(client: httpx.Client) -> None:
    trace = got(client, f"{A}/trips/trip3/trace")
    assert (trace["outcome"], trace["recalibrated_revision"]) == ("declined", None)
    assert "arrived after a newer revision" in trace["outcome_reason"]
    assert trace["points"][0]["recalibrated"] is None
    problem(client.get(f"{A}/trips/trip1/trace"), 404)
    problem(client.get(f"{A}/trips/nothing/trace"), 404)


def test_a_parameters_history_is_what_the_revisions_say(
    client: httpx.Client, inside: Insides
) -> None:
    history = got(client, HISTORY)
    assert (history["unit"], history["odometer_unit"], history["every"]) == ("1", "km", 1)
    for point, row in zip(history["points"], inside.rows("a"), strict=True):
        estimate = calibration.estimate_of(decode_revision(row.content))
        std = float(np.sqrt(estimate.covariance[0, 0]))
        assert (point["revision"], point["value"]) == (row.number, estimate.theta[0])
        assert point["std"] == pytest.approx(std)
        assert point["band95_upper"] == pytest.approx(estimate.theta[0] + 1.96 * std, rel=1e-4)
    assert history["points"][-1]["verdict"] == "refused"


@pytest.mark.parametrize("index", [0, 1])
def test_each_parameters_variance_is_found_in_the_triangle(inside: Insides, index: int) -> None:
    row = inside.rows("a")[2]
    estimate = calibration.estimate_of(decode_revision(row.content))
    expected = estimate.theta[index], estimate.covariance[index, index] ** 0.5
    assert histories.value_and_std(row.content, index) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("params", "expected", "every"),
    [
        ({"points": 3}, [1, 3, 5], 2),
        ({"points": 1}, [1], 6),
        ({"odometer__gte": 6000, "odometer__lt": 10000}, [3, 4], 1),
        ({"odometer__gte": 6000, "points": 2}, [3, 5], 2),
        ({"from": LATER}, [], 1),
    ],
)
def test_a_history_is_cut_and_thinned_as_asked(
    client: httpx.Client, params: dict[str, Any], expected: list[int], every: int
) -> None:
    history = got(client, HISTORY, **params)
    assert [point["revision"] for point in history["points"]] == expected
    assert history["every"] == every


def test_a_fleets_history_is_that_of_the_vehicles_listed(client: httpx.Client) -> None:
    path = f"{V1}/parameters/gain_distance"
    whole = got(client, path)
    assert whole["vehicles"] == 3
    assert [(p["vehicle_id"], p["revision"]) for p in whole["points"]] == [
        *(("a", n) for n in range(1, 7)),
        ("b", 1),
        ("b", 2),
    ]
    one = got(client, path, sort="-breaches", vehicles=1)
    assert {point["vehicle_id"] for point in one["points"]} == {"a"}
    thin = got(client, path, points=4)
    assert [(p["vehicle_id"], p["revision"]) for p in thin["points"]] == [
        ("a", 1),
        ("a", 4),
        ("b", 1),
    ]
    assert got(client, path, cohort="north")["points"] == []
    problem(client.get(f"{V1}/parameters/colour"), 404)


def test_two_revisions_are_compared_at_the_later_ones_odometer(
    client: httpx.Client, inside: Insides
) -> None:
    diff = got(client, f"{A}/revisions/1/diff/5")
    gain = diff["parameters"][0]
    assert (diff["before"]["number"], diff["after"]["number"]) == (1, 5)
    assert (diff["odometer"], diff["odometer_unit"], diff["related"]) == (10000.0, "km", True)
    assert gain["change"] == pytest.approx(gain["to_value"] - gain["from_value"])
    assert gain["change_std"] ** 2 == pytest.approx(gain["from_std"] ** 2 - gain["to_std"] ** 2)
    assert gain["z"] == pytest.approx(gain["change"] / gain["change_std"])
    assert got(client, f"{A}/revisions/5/diff/1") == diff
    same = got(client, f"{A}/revisions/2/diff/2")["parameters"][0]
    assert (same["change"], same["z"], same["significant"]) == (0.0, None, False)
    problem(client.get(f"{A}/revisions/1/diff/99"), 404)


def test_the_summary_counts_what_came_and_how_the_fleet_stands(client: httpx.Client) -> None:
    summary = got(client, f"{V1}/summary", to=LATER)
    assert (summary["vehicles"], summary["trips"], summary["breaches"]) == (3, 12, 9)
    assert summary["revisions_by_kind"] == {"breach": 8}
    assert summary["revisions_by_verdict"] == {"applied": 5, "none": 2, "refused": 1}
    assert sum(summary["vehicles_by_state"].values()) == 2
    assert sum(one["count"] for one in summary["trip_error_v"]) == 12
    assert sum(one["count"] for one in summary["soh"]) + summary["soh_unknown"] == 3
    assert summary["until"] == LATER.replace("+00:00", "Z")
    before = got(client, f"{V1}/summary", to="2020-01-01T00:00:00Z")
    assert (before["trips"], before["revisions_by_kind"], before["vehicles"]) == (0, {}, 3)
    assert got(client, f"{V1}/summary", cohort="north")["vehicles"] == 0
    problem(client.get(f"{V1}/summary", params={"from": LATER, "to": "2020-01-01T00:00:00Z"}), 422)


@pytest.mark.parametrize(
    ("params", "count"),
    [
        ({}, 3),
        ({"vehicle_id": "b"}, 2),
        ({"error": "TopicError"}, 1),
        ({"from": LATER}, 0),
        ({"to": LATER}, 3),
    ],
)
def test_the_quarantine_is_filtered(
    client: httpx.Client, params: dict[str, Any], count: int
) -> None:
    assert len(got(client, f"{V1}/quarantine", **params)["items"]) == count


def test_events_are_listed_the_latest_first(client: httpx.Client, inside: Insides) -> None:
    with inside.store.write() as db:
        before = len(inside.table(Event))
        for number, kind in enumerate(("test.made", "test.lost", "other.made")):
            add(db, kind, NOW + number, vehicle_id="zz", cohort="default", detail={"n": number})
    items = got(client, f"{V1}/events", vehicle_id="zz")["items"]
    assert [item["kind"] for item in items] == ["other.made", "test.lost", "test.made"]
    assert items[0]["detail"] == {"n": 2}
    kinds = [one["kind"] for one in got(client, f"{V1}/events", kind="test.")["items"]]
    assert kinds == ["test.lost", "test.made"]
    assert len(got(client, f"{V1}/events", limit=500)["items"]) == before + 3
