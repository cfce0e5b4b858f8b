"""The operator API: pages, lineage, health, prediction, and every error as a problem."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from cloud.api.access import Context
from cloud.intake.interpretation import Delivery
from common import calibration
from common.calibration import Settings
from common.model import VoltageModel
from common.revision import decode_revision
from tests.cloud_doubles import Insides, problem, serving, write_bundle

V1 = "/api/v1"
ROWS = [{"distance_km": 100.0, "load_kg": 5000.0}, {"distance_km": 250.0, "load_kg": 5000.0}]


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """Car `a` with five trips and three revisions, `b` with nothing but a status, `c` foreign."""
    inside = Insides(
        tmp_path_factory.mktemp("api"), write_bundle(tmp_path_factory.mktemp("bundle"))
    )
    a = inside.car("a")
    inside.take(
        *(a.trip(number, time_known=number > 1) for number in range(1, 6)), a.status(revision=2)
    )
    for trip, verdict in ((2, "applied"), (4, "applied"), (5, "refused")):
        inside.take(a.breach(trip, odometer=5000.0 * trip))
        inside.work()
        inside.take(a.acknowledgement(inside.rows("a")[-1], verdict))
    inside.take(inside.car("b").status(time_known=False), inside.car("c").status(bundle="ee" * 32))
    inside.take(*(a.provisional(trip) for trip in (1, 2, 3)))
    inside.take(*(Delivery("x", f"garbage {i}".encode(), mid=i) for i in range(3)))
    yield inside
    inside.store.close()


@pytest.fixture(scope="module")
def checks() -> dict[str, Any]:
    return {"database": lambda: None, "broker": lambda: None}


@pytest.fixture(scope="module")
def client(inside: Insides, checks: dict[str, Any]) -> Iterator[httpx.Client]:
    """Against a real server on a port of its own."""
    with serving(Context(inside.store, inside.catalogue, lambda: inside.now, checks)) as client:
        yield client


def test_the_list_of_vehicles_shows_how_each_one_is(client: httpx.Client) -> None:
    a, b, c = client.get(f"{V1}/vehicles").json()["items"]
    assert (a["vehicle_id"], a["trips"], a["breaches"]) == ("a", 5, 3)
    assert (a["revision"], a["newest_revision"]) == (2, 3)
    assert (a["state"], a["state_reason"]) == ("known", None)
    assert (a["odometer"], a["odometer_unit"], a["last_trip_error_v"]) == (5320.0, "km", 0.025)
    assert a["last_seen_at"].endswith("Z")
    assert (b["state"], b["odometer"], b["last_trip_received_at"]) == ("learning", None, None)
    assert (c["state"], c["bundle_name"], c["odometer_unit"]) == (None, None, None)


@pytest.mark.parametrize(
    ("path", "key", "count"),
    [
        (f"{V1}/vehicles", "vehicle_id", 3),
        (f"{V1}/vehicles/a/trips", "trip_id", 5),
        (f"{V1}/vehicles/a/revisions", "number", 3),
        (f"{V1}/vehicles/a/provisionals", "step", 3),
        (f"{V1}/quarantine", "id", 3),
    ],
)
def test_pages_lead_through_the_whole_list_once(
    client: httpx.Client, path: str, key: str, count: int
) -> None:
    whole = [item[key] for item in client.get(path).json()["items"]]
    assert len(whole) == len(set(whole)) == count
    seen: list[Any] = []
    url: str | None = f"{path}?limit=2"
    while url is not None:
        response = client.get(url)
        body = response.json()
        assert len(body["items"]) <= 2
        seen += [item[key] for item in body["items"]]
        url = response.links["next"]["url"] if "next" in response.links else None
        assert (url is None) == (body["next"] is None)
    assert seen == whole


def test_a_page_survives_what_arrives_between_two_of_them(client: httpx.Client) -> None:
    first = client.get(f"{V1}/vehicles/a/trips", params={"limit": 2}).json()
    second = client.get(
        f"{V1}/vehicles/a/trips", params={"limit": 2, "cursor": first["next"]}
    ).json()
    ids = [item["trip_id"] for item in first["items"] + second["items"]]
    assert ids == ["trip5", "trip4", "trip3", "trip2"]
    assert first["items"][0]["feature_means"] == {"distance_km": 160.0, "load_kg": 5100.0}


def test_a_revision_shows_its_lineage_and_parameters_with_their_uncertainty(
    client: httpx.Client, inside: Insides
) -> None:
    newest, second, first = client.get(f"{V1}/vehicles/a/revisions").json()["items"]
    assert (newest["base"], newest["verdict"], newest["verdict_reason"]) == (
        2,
        "refused",
        "worse_on_trace",
    )
    assert newest["parent_hash"] == second["hash"]
    assert second["cause"]["trip_id"] == "trip4"
    detail = client.get(f"{V1}/vehicles/a/revisions/2").json()
    gain, offset = detail["parameters"]
    row = inside.rows("a")[1]
    revision = decode_revision(row.content)
    assert (gain["name"], gain["unit"], gain["rate_unit"]) == ("gain_distance", "1", "1/km")
    assert (gain["value"], gain["rate"]) == (revision.theta[0], revision.rate[0])
    covariance = calibration.estimate_of(revision).covariance
    assert gain["std"] == pytest.approx(covariance[0, 0] ** 0.5)
    assert offset["rate_std"] == 0.0
    assert detail["trace_error_after_v"] == 0.01
    assert first["number"] == 1


def test_a_prediction_is_the_calibrated_band_of_the_newest_standing_revision(
    client: httpx.Client, inside: Insides
) -> None:
    body = client.post(f"{V1}/vehicles/a/predict", json={"odometer": 30000.0, "rows": ROWS}).json()
    revision = decode_revision(inside.rows("a")[1].content)
    manifest = inside.bundle.manifest
    there = calibration.extrapolate(calibration.estimate_of(revision), manifest, 30000.0)
    features = [[100.0, 5000.0], [250.0, 5000.0]]
    mean, std = calibration.voltage_band(
        there,
        np.array(features),
        VoltageModel(inside.bundle),
        manifest,
        Settings(),
    )
    assert [row["voltage_v"] for row in body["rows"]] == mean.tolist()
    assert body["rows"][1]["band95_upper_v"] == pytest.approx(mean[1] + 1.96 * std[1], rel=1e-4)
    assert (body["revision"], body["odometer"], body["odometer_unit"]) == (2, 30000.0, "km")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"rows": [{"distance_km": 1.0}]}, "body.rows.0"),
        ({"rows": [{**ROWS[0], "speed": 1.0}]}, "body.rows.0"),
        ({"rows": [ROWS[0], {**ROWS[0], "distance_km": 1e9}]}, "body.rows.1.distance_km"),
        ({"rows": []}, "body.rows"),
        ({"rows": ROWS, "odometer": -1}, "body.odometer"),
        ({"rows": ROWS, "milage": 1}, "body.milage"),
        ({}, "body.rows"),
    ],
)
def test_a_prediction_on_wrong_rows_says_which(
    client: httpx.Client, body: dict[str, Any], where: str
) -> None:
    found = problem(client.post(f"{V1}/vehicles/a/predict", json=body), 422)
    assert where in [violation["where"] for violation in found["violations"]]


@pytest.mark.parametrize(
    "path",
    [
        f"{V1}/vehicles/nobody",
        f"{V1}/vehicles/nobody/trips",
        f"{V1}/vehicles/nobody/revisions",
        f"{V1}/vehicles/nobody/provisionals",
        f"{V1}/vehicles/nobody/health",
        f"{V1}/vehicles/a/revisions/99",
        f"{V1}/vehicles/a/revisions/99999999999999999999999",
        f"{V1}/vehicles/c/health",
        f"{V1}/nothing",
        "/",
    ],
)
def test_what_is_not_there_is_a_404_problem(client: httpx.Client, path: str) -> None:
    problem(client.get(path), 404)


@pytest.mark.parametrize(
    "path",
    [
        f"{V1}/vehicles",
        f"{V1}/vehicles/a",
        f"{V1}/vehicles/a/trips",
        f"{V1}/vehicles/a/revisions",
        f"{V1}/vehicles/a/revisions/1",
        f"{V1}/vehicles/a/health",
        f"{V1}/quarantine",
        "/health/live",
        "/readyz",
    ],
)
def test_an_unknown_query_parameter_is_refused_by_name(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    found = problem(client.get(path, params={"colour": "red"}), 422)
    assert found["violations"][0]["where"] == "query.colour"


@pytest.mark.parametrize("cursor", ["garbage", "####", "", "bnVsbA", "WzEsMl0", "é"])
@pytest.mark.parametrize("path", ["vehicles", "vehicles/a/trips", "quarantine"])
def test_a_cursor_of_another_list_is_refused(client: httpx.Client, path: str, cursor: str) -> None:
    response = client.get(f"{V1}/{path}", params={"cursor": cursor})
    if path == "vehicles/a/trips" and cursor == "WzEsMl0":
        assert response.status_code == 200  # [1, 2] is one of its keys
    else:
        problem(response, 422)


@pytest.mark.parametrize("limit", ["0", "501", "many", "-1"])
def test_a_limit_out_of_range_is_refused(client: httpx.Client, limit: str) -> None:
    found = problem(client.get(f"{V1}/vehicles", params={"limit": limit}), 422)
    assert found["violations"][0]["where"] == "query.limit"


def test_a_wrong_method_and_a_failure_are_problems_too(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.post(f"{V1}/vehicles")
    problem(response, 405)
    assert response.headers["allow"] == "GET"

    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("cloud.store.vehicle_pages.page", fails)
    # uvicorn closes the connection over it: the next test shall not meet that.
    found = problem(client.get(f"{V1}/vehicles", headers={"Connection": "close"}), 500)
    assert "secret" not in str(found)
    assert "secret" in caplog.text


def test_readiness_names_what_fails_and_liveness_does_not_care(
    client: httpx.Client, checks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").json() == {
        "status": "ready",
        "checks": {"database": "ok", "broker": "ok"},
    }
    monkeypatch.setitem(checks, "broker", lambda: "no connection")
    found = problem(client.get("/readyz"), 503)
    assert found["detail"] == "broker: no connection"
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_quarantine_shows_the_latest_first_with_the_reason(client: httpx.Client) -> None:
    items = client.get(f"{V1}/quarantine").json()["items"]
    assert [item["payload_head"] for item in items] == ["garbage 2", "garbage 1", "garbage 0"]
    assert items[0]["error"] == "TopicError"


def test_openapi_describes_every_route_its_problems_and_its_fields(client: httpx.Client) -> None:
    schema = client.get(f"{V1}/openapi.json").json()
    wanted = {
        *(f"{V1}/vehicles", f"{V1}/quarantine", "/health/live", "/health/ready"),
        *(
            f"{V1}/vehicles/{{vehicle_id}}{tail}"
            for tail in ("", "/trips", "/revisions", "/health")
        ),
        f"{V1}/vehicles/{{vehicle_id}}/revisions/{{number}}",
        f"{V1}/vehicles/{{vehicle_id}}/predict",
    }
    assert wanted <= schema["paths"].keys()
    for path, method in itertools.product(schema["paths"], ("get", "post")):
        operation = schema["paths"][path].get(method)
        if operation is None:
            continue
        assert operation.get("description"), path
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert "application/problem+json" in response["content"], (path, status)
    assert "HTTPValidationError" not in schema["components"]["schemas"]
    for url in ("problems/404", "problems/422"):
        assert client.get(f"{V1}/{url}").status_code == 200


def test_a_time_that_the_vehicle_did_not_know_is_shown_as_such(client: httpx.Client) -> None:
    trips = client.get(f"{V1}/vehicles/a/trips").json()["items"]
    assert {trip["trip_id"] for trip in trips if not trip["time_known"]} == {"trip1"}
    assert client.get(f"{V1}/vehicles/a").json()["time_known"] is True
    assert client.get(f"{V1}/vehicles/b").json()["time_known"] is False


def test_what_a_vehicle_made_for_itself_stands_beside_the_chain(client: httpx.Client) -> None:
    newest, middle, oldest = client.get(f"{V1}/vehicles/a/provisionals").json()["items"]
    assert [one["step"] for one in (oldest, middle, newest)] == [1, 2, 3]
    assert (oldest["base"], oldest["replaced_by"], middle["replaced_by"]) == (0, None, 1)
    assert [one["name"] for one in oldest["parameters"]] == ["gain_distance", "offset_output"]
    assert oldest["parameters"][0]["std"] == pytest.approx(0.1)
    assert (oldest["odometer_unit"], oldest["time_known"]) == ("km", True)
    revisions = client.get(f"{V1}/vehicles/a/revisions").json()["items"]
    assert [one["number"] for one in revisions] == [3, 2, 1]


def test_a_route_takes_the_parameters_that_its_description_names(client: httpx.Client) -> None:
    """Each by name, none more: what is refused lists them."""
    paths = client.get(f"{V1}/openapi.json").json()["paths"]
    asked = 0
    for path, methods in paths.items():
        if "get" not in methods or "{" in path.replace("{vehicle_id}", ""):
            continue
        described = [one for one in methods["get"].get("parameters", []) if one["in"] == "query"]
        url = path.replace("{vehicle_id}", "a")
        found = problem(client.get(url, params={"colour": "red"}), 422)
        known = found["violations"][0]["problem"].removeprefix("unknown parameter; known: ")
        assert set(known.split(", ")) == ({one["name"] for one in described} or {"none"}), path
        asked += 1
    assert asked > 12
