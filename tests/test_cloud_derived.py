"""Derived quantities through the operator API and the command line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from cloud.api import derived_views
from cloud.api.access import Context
from cloud.api.derived_schemas import PlannedRowItem
from cloud.api.views import Standing
from cloud.mileage import DAY_S
from cloud.store.tables import Vehicle
from common import calibration
from common.batch import extrapolate
from common.estimate_state import Judgement
from common.forecast import Mileage, forecast
from common.health import state_of_health
from common.model import VoltageModel
from common.revision import decode_revision
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle
from tests.support_command_line import twin_cloud

V1 = "/api/v1"
A, B, C = (f"{V1}/vehicles/{name}" for name in "abc")
HERE = {"distance_km": 40.0, "load_kg": 5200.0}
PLAN = [
    {"time_s": 600.0 * i, "signals": {"distance_km": 10.0 * i, "load_kg": 5000.0}}
    for i in range(30)
]
KM_PER_DAY = 100.0


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """Car `a` with two revisions that drives 100 km a day, `b` with nothing but a status, `c`
    of a bundle that is not known here."""
    folder = tmp_path_factory.mktemp("derived")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    a = inside.car("a")
    for trip in range(1, 13):
        late = DAY_S * (1000.0 * (12 - trip) + 320.0) / KM_PER_DAY
        started, odometer = NOW - late, 1000.0 * trip
        inside.take(a.trip(trip, started_at=started, duration_s=DAY_S * 3.2))
        if trip in {4, 12}:
            inside.take(a.breach(trip, odometer=odometer))
            inside.work()
            inside.take(a.acknowledgement(inside.rows("a")[-1], "applied"))
    inside.take(a.status(revision=2), inside.car("b").status())
    inside.take(inside.car("c").status(bundle="ee" * 32))
    yield inside
    inside.store.close()


@pytest.fixture(scope="module")
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(Context(inside.store, inside.catalogue, lambda: inside.now, {})) as client:
        yield client


def answer(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def estimate_of_a(inside: Insides, odometer: float = 12320.0) -> calibration.Estimate:
    revision = decode_revision(inside.rows("a")[-1].content)
    return extrapolate(calibration.estimate_of(revision), inside.bundle.manifest, odometer)


def when(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_health_comes_with_its_band_and_state(client: httpx.Client, inside: Insides) -> None:
    health = answer(client.get(f"{A}/health"))
    found = state_of_health(
        estimate_of_a(inside),
        VoltageModel(inside.bundle),
        inside.bundle.manifest,
        np.random.default_rng(0),
    )
    assert found is not None
    shown = [health[f"band95_{end}"] for end in ("lower", "upper")]
    assert shown == [found.ratio.low, found.ratio.high]
    assert shown[0] < health["state_of_health"] < shown[1]
    assert health["state_of_health_std"] == found.ratio.std
    assert health["usable_band95_lower"] < health["usable"] < health["usable_band95_upper"]
    assert (health["revision"], health["usable_unit"]) == (2, "km")
    assert health["state"] in {"known", "learning"}
    new = answer(client.get(f"{B}/health"))
    assert (new["state"], new["state_of_health"], new["revision"]) == ("learning", 1.0, 0)
    assert new["band95_upper"] - new["band95_lower"] > shown[1] - shown[0]
    assert new["state_reason"].startswith("no calibration yet")


def test_health_further_on_is_lower_and_less_certain(client: httpx.Client) -> None:
    here = answer(client.get(f"{A}/health"))
    there = answer(client.get(f"{A}/health", params={"odometer": 30000}))
    assert there["odometer"] == 30000.0
    assert there["state_of_health"] < here["state_of_health"]
    assert there["state_of_health_std"] > here["state_of_health_std"]


def test_a_forecast_tells_odometer_and_date_from_the_vehicles_own_trips(
    client: httpx.Client, inside: Insides
) -> None:
    found = answer(client.get(f"{A}/forecast", params={"threshold": 0.7, "horizon": 1e5}))
    mileage = found["mileage"]
    assert mileage["per_day"] == pytest.approx(KM_PER_DAY)
    assert mileage["source"] == "trips"
    expected = forecast(
        estimate_of_a(inside),
        0.7,
        1e5,
        VoltageModel(inside.bundle),
        inside.bundle.manifest,
        np.random.default_rng(0),
        Mileage(mileage["per_day"], mileage["std"]),
    )
    crossing = found["crossing_odometer"]
    assert crossing["value"] == expected.odometer.value
    assert (crossing["low"], crossing["high"]) == (expected.odometer.low, expected.odometer.high)
    assert (crossing["unit"], crossing["level"]) == ("km", 0.95)
    assert (found["below_share"], found["never_share"]) == (
        expected.below_share,
        expected.never_share,
    )
    days = (crossing["value"] - 12320.0) / KM_PER_DAY
    assert when(found["crossing_date"]["value"]) == pytest.approx(NOW + DAY_S * days, abs=DAY_S)
    assert {"state", "state_reason", "revision"} <= found.keys()


def test_a_forecast_by_a_given_mileage_needs_no_trips(client: httpx.Client) -> None:
    found = answer(
        client.get(f"{B}/forecast", params={"odometer_per_day": 50, "odometer_per_day_std": 5})
    )
    assert found["horizon"] == pytest.approx(50 * 3652.5)
    assert found["mileage"] == {"per_day": 50.0, "std": 5.0, "source": "given"}
    assert found["state"] == "learning"


@pytest.mark.parametrize(
    "query",
    [
        {"horizon": "5e-324"},
        {"horizon": "1e-310", "odometer_per_day": "5e-324"},
        {"threshold": "0.97", "horizon": "1e5", "odometer_per_day": "5e-324"},
        {"horizon": "1e5", "odometer_per_day": "1e-300", "odometer_per_day_std": "1e6"},
        {"odometer_per_day": "1e-200", "odometer_per_day_std": "1e-10"},
    ],
)
def test_an_absurd_mileage_or_horizon_is_answered_without_a_date(
    client: httpx.Client, query: dict[str, str]
) -> None:
    """A warning of the arithmetic would be an error of the server here."""
    found = answer(client.get(f"{A}/forecast", params=query))
    if not found["already_below"] and found["crossing_date"] is not None:
        assert found["crossing_date"]["value"] is None
    assert 0.0 <= found["below_share"] <= 1.0 - found["never_share"]


def test_a_vehicle_below_the_threshold_is_said_to_be(client: httpx.Client) -> None:
    found = answer(client.get(f"{A}/forecast", params={"threshold": 0.97}))
    assert found["already_below"]
    assert found["below_share"] > 0.9
    assert found["crossing_odometer"]["value"] == found["odometer"]


def test_a_threshold_beyond_the_horizon_has_no_date(client: httpx.Client) -> None:
    found = answer(client.get(f"{A}/forecast", params={"threshold": 0.5, "horizon": 10}))
    assert found["never_share"] == 1.0
    assert [found["crossing_odometer"][key] for key in ("value", "low", "high")] == [None] * 3
    assert [found["crossing_date"][key] for key in ("value", "low", "high")] == [None] * 3


@pytest.mark.parametrize(
    ("vehicle", "query", "where"),
    [
        *((A, {"threshold": t}, "query.threshold") for t in ("0", "1", "-1", "nan", "x")),
        *((A, {"horizon": h}, "query.horizon") for h in ("0", "-5", "inf", "nan", "1e12")),
        (A, {"odometer_per_day": "0"}, "query.odometer_per_day"),
        (A, {"odometer_per_day_std": "3"}, "query.odometer_per_day_std"),
        (A, {"colour": "red"}, "query.colour"),
        (B, {}, "query.horizon"),
    ],
)
def test_a_forecast_that_makes_no_sense_says_what(
    client: httpx.Client, vehicle: str, query: dict[str, str], where: str
) -> None:
    found = problem(client.get(f"{vehicle}/forecast", params=query), 422)
    assert where in [violation["where"] for violation in found["violations"]]


def test_the_range_from_here_falls_with_what_lies_behind(client: httpx.Client) -> None:
    health = answer(client.get(f"{A}/health"))
    found = answer(client.post(f"{A}/range", json={"conditions": {"distance_km": 40.0}}))
    left = found["remaining"]
    assert left["value"] == pytest.approx(health["usable"] - 40.0, abs=1e-2)
    assert left["low"] < left["value"] < left["high"]
    assert found["remaining_distance"] == left
    assert found["conditions"] == {"distance_km": 40.0, "load_kg": 5000.0}
    later = answer(client.post(f"{A}/range", json={"conditions": {"distance_km": 90.0}}))
    assert later["remaining"]["value"] == pytest.approx(left["value"] - 50.0, abs=1e-2)
    assert later["state"] == health["state"]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body.conditions"),
        ({"conditions": {"load_kg": 5000.0}}, "body.conditions.distance_km"),
        ({"conditions": {**HERE, "wind": 1.0}}, "body.conditions.wind"),
        ({"conditions": {**HERE, "load_kg": 1e9}}, "body.conditions.load_kg"),
        ({"conditions": HERE, "consumption_per_km": 0}, "body.consumption_per_km"),
        ({"conditions": HERE, "consumption_per_km": 2}, "body.consumption_per_km"),
        ({"conditions": HERE, "odometer": -1}, "body.odometer"),
        ({"conditions": HERE, "milage": 1}, "body.milage"),
    ],
)
def test_a_range_that_makes_no_sense_says_what(
    client: httpx.Client, body: dict[str, Any], where: str
) -> None:
    found = problem(client.post(f"{A}/range", json=body), 422)
    assert where in [violation["where"] for violation in found["violations"]]


def test_a_planned_trip_tells_whether_it_arrives(client: httpx.Client) -> None:
    health = answer(client.get(f"{A}/health"))
    long = answer(client.post(f"{A}/planned-trip", json={"rows": PLAN}))
    short = answer(client.post(f"{A}/planned-trip", json={"rows": PLAN[:10]}))
    assert (long["arrives"], short["arrives"]) == (False, True)
    assert (long["arrival_probability"], short["arrival_probability"]) == (0.0, 1.0)
    assert long["mean_crosses"]["swept"] == pytest.approx(health["usable"], abs=0.5)
    assert long["band_crosses"]["swept"] < long["mean_crosses"]["swept"]
    assert short["mean_crosses"] is None
    assert len(long["rows"]) == len(PLAN)
    for row in long["rows"]:
        assert row["band95_lower_v"] < row["voltage_v"] < row["band95_upper_v"]


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        ([], "body.rows"),
        ([{"signals": {"distance_km": 1.0}}], "body.rows.0.load_kg"),
        ([PLAN[0], PLAN[0]], "body.rows.1.time_s"),
        ([PLAN[0], {**PLAN[1], "colour": 1}], "body.rows.1.colour"),
        ([{"signals": {"distance_km": -5.0, "load_kg": 1.0}}], "body.rows.0.distance_km"),
    ],
)
def test_a_planned_trip_that_makes_no_sense_says_what(
    client: httpx.Client, rows: list[Any], where: str
) -> None:
    found = problem(client.post(f"{A}/planned-trip", json={"rows": rows}), 422)
    assert where in [violation["where"] for violation in found["violations"]]


@pytest.mark.parametrize("vehicle", [C, f"{V1}/vehicles/nobody"])
def test_who_is_not_there_is_a_404_problem(client: httpx.Client, vehicle: str) -> None:
    problem(client.get(f"{vehicle}/health"), 404)
    problem(client.get(f"{vehicle}/forecast"), 404)
    problem(client.post(f"{vehicle}/range", json={"conditions": HERE}), 404)
    problem(client.post(f"{vehicle}/planned-trip", json={"rows": PLAN}), 404)


def test_the_same_question_has_the_same_answer(client: httpx.Client) -> None:
    for path in (f"{A}/health", f"{A}/forecast?horizon=50000"):
        assert client.get(path).content == client.get(path).content


def test_what_a_trip_alone_brings_widens_the_range_and_not_the_health(inside: Insides) -> None:
    gain, offset = inside.bundle.manifest.parameters
    varying = [msgspec.structs.replace(gain, trip_std=0.05), offset]
    manifest = msgspec.structs.replace(inside.bundle.manifest, parameters=varying)
    known = Standing(manifest, "ff" * 32, 2, estimate_of_a(inside), Judgement("known"))
    vehicle = Vehicle(vehicle_id="a", first_seen_at=NOW)
    model = VoltageModel(inside.bundle)
    health = derived_views.health_of(vehicle, known, model)
    found = derived_views.range_of(vehicle, known, model, {"distance_km": 0.0}, None)
    assert health.usable is not None
    assert health.usable_std is not None
    assert found.remaining.std is not None
    of_trip = 0.05 * health.usable / known.estimate.theta[0]
    expected = math.hypot(health.usable_std, of_trip)
    assert found.remaining.std == pytest.approx(expected, rel=0.05)
    rows = [PlannedRowItem(signals={"distance_km": 200.0, "load_kg": 5000.0})]
    planned = derived_views.planned_trip_of(vehicle, known, model, rows)
    usual = Standing(inside.bundle.manifest, "ff" * 32, 2, known.estimate, Judgement("known"))
    narrow = derived_views.planned_trip_of(vehicle, usual, model, rows)
    assert planned.rows[0].std_v > 2 * narrow.rows[0].std_v


@pytest.fixture(scope="module")
def config(inside: Insides) -> Path:
    path = inside.path.parent / "twin-cloud.toml"
    path.write_text(
        '[store]\npath = "twin.db"\n[bundles]\npaths = ["bundle"]\n[keys]\nprivate = "none.pem"\n'
    )
    (path.parent / "plan.json").write_text(json.dumps({"rows": PLAN}))
    return path


@dataclass
class Done:
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def typed(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """What a command does, in this process: a new one takes seconds."""

    def type_(*words: str) -> Done:
        return Done(*twin_cloud(monkeypatch, capsys, *words, "--config", config))

    return type_


def test_the_command_line_gives_what_the_api_gives(
    client: httpx.Client, config: Path, typed: Callable[..., Done]
) -> None:
    plan = str(config.parent / "plan.json")
    for words, expected in (
        (["health", "a"], client.get(f"{A}/health")),
        (["forecast", "a", "--horizon", "50000"], client.get(f"{A}/forecast?horizon=50000")),
        (
            ["range", "a", "--at", "distance_km=40", "--at", "load_kg=5200"],
            client.post(f"{A}/range", json={"conditions": HERE}),
        ),
        (["planned-trip", "a", plan], client.post(f"{A}/planned-trip", json={"rows": PLAN})),
    ):
        done = typed(*words, "--json")
        assert done.code == 0, done.stderr
        shown, wanted = json.loads(done.stdout), answer(expected)
        for moving in ("state", "state_reason", "crossing_date"):  # by the clock of who asks
            shown.pop(moving, None)
            wanted.pop(moving, None)
        assert shown == wanted


def test_the_table_shows_quantities_with_their_ends(typed: Callable[..., Done]) -> None:
    done = typed("range", "a", "--at", "distance_km=40")
    assert done.code == 0, done.stderr
    for word in ("remaining", "low", "high", "km", "state"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["health", "nobody"], 3, "no vehicle 'nobody'"),
        (["health", "c"], 3, "no vehicle 'c' with a bundle"),
        (["forecast", "a", "--threshold", "2"], 2, "threshold"),
        (["forecast", "a", "--horizon", "nan"], 2, "horizon"),
        (["health", "a", "--odometer", "nan"], 2, "odometer"),
        (["range", "a", "--at", "distance_km"], 2, "FEATURE=VALUE"),
        (["range", "a", "--at", "wind=3"], 2, "conditions.wind"),
        (["planned-trip", "a", "missing.json"], 2, "missing.json"),
    ],
)
def test_a_command_that_cannot_be_answered_says_why(
    typed: Callable[..., Done], words: list[str], code: int, says: str
) -> None:
    done = typed(*words)
    assert done.code == code, done.stderr
    assert says in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}'])
def test_a_file_that_is_no_plan_is_refused(
    config: Path, typed: Callable[..., Done], text: str
) -> None:
    path = config.parent / "wrong.json"
    path.write_text(text)
    done = typed("planned-trip", "a", str(path))
    assert done.code == 2
    assert "cannot be answered" in done.stderr


def test_the_fixture_is_what_it_says(inside: Insides) -> None:
    vehicles = {row.vehicle_id: row for row in inside.table(Vehicle)}
    assert vehicles["a"].odometer == 12320.0
    assert [row.verdict for row in inside.rows("a")] == ["applied", "applied"]
