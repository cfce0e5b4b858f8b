"""Maintenance: tasks that forecasts propose, what people make of them, calendar, fleet health."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from icalendar import Calendar
from sqlmodel import Session

from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.location import PostgresUrl
from cloud.maintenance.planner import Planner
from cloud.mileage import DAY_S
from cloud.policy import Policy
from cloud.store import battery_orders, maintenance, policies
from cloud.store.maintenance_tables import MaintenanceTask, Outlook
from cloud.store.tables import BatteryOrder
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle
from tests.support_command_line import twin_cloud

V1 = "/api/v1"
KM_PER_DAY = 100.0


def drive(inside: Insides, first: int, last: int) -> None:
    """`a` drives 100 km a day, and has a breach on every fourth trip."""
    a = inside.car("a")
    for trip in range(first, last + 1):
        late = DAY_S * (1000.0 * (12 - trip) + 320.0) / KM_PER_DAY
        inside.take(a.trip(trip, started_at=NOW - late, duration_s=DAY_S * 3.2))
        if trip % 4 == 0:
            inside.take(a.breach(trip))
            inside.work()


@pytest.fixture
def inside(tmp_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"), database)
    drive(inside, 1, 12)
    inside.take(inside.car("b").status())
    yield inside
    inside.store.close()


@pytest.fixture
def planner(inside: Insides) -> Planner:
    return Planner(inside.store, inside.catalogue, lambda: inside.now, lambda: 1.0)


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(context_of(inside)) as client:
        client.timeout = httpx.Timeout(60.0)
        yield client


def context_of(inside: Insides) -> Context:
    return Context(inside.store, inside.catalogue, lambda: inside.now, {})


def look(planner: Planner) -> int:
    """How many vehicles were forecast until none was due."""
    planner.wake()
    forecast = 0
    while planner.turn():
        forecast += 1
        planner.wake()
    return forecast


def tasks(client: httpx.Client, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"{V1}/maintenance", params=params).json()["items"]
    return found


def say(client: httpx.Client, word: str, task: int, **more: Any) -> httpx.Response:
    told = {"why": "looked at", "by": "desk", **more}
    return client.post(f"{V1}/maintenance/{task}/{word}", json=told)


def events_of(client: httpx.Client) -> list[Any]:
    found: list[Any] = Calendar.from_ical(client.get(f"{V1}/maintenance.ics").content).events
    return found


def kinds(client: httpx.Client) -> list[str]:
    found = client.get(f"{V1}/events", params={"kind": "maintenance."}).json()["items"]
    return [one["kind"] for one in found]


def rule(inside: Insides, **settings: Any) -> None:
    with inside.store.write() as db:
        policies.add(db, "default", Policy(**settings), actor="desk", why="test", now=NOW)


def test_a_forecast_proposes_one_task_that_agrees_with_it(
    inside: Insides, planner: Planner, client: httpx.Client
) -> None:
    assert look(planner) == 1
    assert look(planner) == 0
    [task] = tasks(client)
    assert (task["vehicle_id"], task["kind"], task["state"]) == ("a", "battery_health", "proposed")
    known = client.get(f"{V1}/vehicles/a/forecast", params={"threshold": 0.8}).json()
    assert task["due_odometer"]["value"] == known["crossing_odometer"]["value"]
    assert task["due"]["value"] == known["crossing_date"]["value"]
    low, high = (task["due"][end] for end in ("low", "high"))
    assert known["crossing_date"]["low"] < low < task["due"]["value"]
    assert high is None or high > task["due"]["value"]
    assert kinds(client) == ["maintenance.proposed"]
    within = (datetime.fromisoformat(task["due"]["value"]).timestamp() - NOW) / DAY_S
    assert tasks(client, within_days=within + 1) == [task]
    assert tasks(client, within_days=within - 1) == []
    assert tasks(client, cohort="north") == tasks(client, state="done") == []


def test_a_policy_that_says_otherwise_re_dates_or_withdraws(
    inside: Insides, planner: Planner, client: httpx.Client
) -> None:
    look(planner)
    [before] = tasks(client)
    rule(inside, health_limit=0.7)
    assert look(planner) == 1
    [after] = tasks(client)
    assert (after["id"], after["due"]["value"] > before["due"]["value"]) == (before["id"], True)
    rule(inside, health_limit=0.7, forecast_horizon_days=1.0)
    look(planner)
    assert tasks(client) == []
    [gone] = client.get(f"{V1}/vehicles/a/maintenance").json()["items"]
    assert (gone["state"], gone["changed_by"]) == ("withdrawn", None)
    assert kinds(client) == [f"maintenance.{w}" for w in ("withdrawn", "redated", "proposed")]


def test_what_a_person_settled_is_not_proposed_again_until_the_battery_is_new(
    inside: Insides, planner: Planner, client: httpx.Client
) -> None:
    look(planner)
    [task] = tasks(client)
    assert say(client, "dismiss", task["id"]).json()["state"] == "dismissed"
    assert "closed" in problem(say(client, "done", task["id"]), 409)["detail"]
    inside.now += 8 * DAY_S
    assert look(planner) == 1
    assert tasks(client) == []
    with inside.store.write() as db:
        order = BatteryOrder(
            vehicle_id="a", odometer=12400.0, ordered_by="w", why="new", ordered_at=NOW
        )
        battery_orders.place(db, order)
    inside.worker.wake()
    inside.work()
    rule(inside, health_limit=0.95)
    look(planner)
    assert [one["state"] for one in tasks(client)] == ["proposed"]


def test_what_a_person_has_scheduled_is_moved_no_more(
    inside: Insides, planner: Planner, client: httpx.Client
) -> None:
    look(planner)
    [task] = tasks(client)
    tried = say(client, "schedule", task["id"], due_at="2027-03-01T08:00:00Z")
    assert (tried.json()["state"], tried.json()["due"]["low"]) == ("scheduled", None)
    rule(inside, health_limit=0.7)
    look(planner)
    [task] = tasks(client)
    assert task["due"]["value"] == "2027-03-01T08:00:00Z"
    assert task["changed_by"] == "desk"
    assert say(client, "done", task["id"]).json()["state"] == "done"
    assert client.get(f"{V1}/audit").json()["items"][0]["kind"] == "maintenance.done"


def test_people_add_tasks_of_their_own_once_a_kind(client: httpx.Client) -> None:
    told = {"kind": "coolant", "due_at": "2027-01-01T00:00:00Z", "why": "recall", "by": "desk"}
    path, key = f"{V1}/vehicles/b/maintenance", {"Idempotency-Key": "x"}
    assert client.post(f"{path}?dry_run=true", json=told).status_code == 201
    first = client.post(path, json=told, headers=key)
    assert (first.status_code, first.json()["state"]) == (201, "scheduled")
    assert client.post(path, json=told, headers=key).json() == first.json()
    problem(client.post(path, json=told), 409)
    assert [one["kind"] for one in tasks(client)] == ["coolant"]


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:30:00+01:00", "9999-12-31T23:30:00-01:00", "1969-12-31T23:59:59Z"]
)
def test_a_time_that_no_calendar_tells_in_utc_is_refused_wherever_it_is_given(
    client: httpx.Client, moment: str
) -> None:
    told = {"kind": "tyres", "due_at": moment, "why": "season"}
    problem(client.post(f"{V1}/vehicles/a/maintenance", json=told), 422)
    for path in ("summary", "vehicles", "vehicles/a/trips", "events"):
        for name in ("from", "to"):
            problem(client.get(f"{V1}/{path}", params={name: moment}), 422)


def test_who_does_not_see_a_vehicle_sees_no_task_of_it(inside: Insides, planner: Planner) -> None:
    look(planner)
    [task] = inside.table(MaintenanceTask)
    with serving(context_of(inside), Actor("ann", "operator", frozenset({"north"}))) as ann:
        assert tasks(ann) == []
        assert ann.get(f"{V1}/health").json()["items"] == []
        problem(say(ann, "done", task.id), 404)
        problem(ann.get(f"{V1}/vehicles/a/maintenance"), 404)
        assert events_of(ann) == []


def test_the_calendar_keeps_a_tasks_uid_and_counts_its_changes(
    planner: Planner, client: httpx.Client
) -> None:
    look(planner)
    [task] = tasks(client)
    answer = client.get(f"{V1}/maintenance.ics")
    assert answer.headers["content-type"].startswith("text/calendar")
    [before] = events_of(client)
    assert (before["status"], str(before["summary"])) == ("TENTATIVE", "a: battery_health")
    due = datetime.fromisoformat(task["due"]["value"]).astimezone(UTC).date()
    assert before.decoded("dtstart") == due
    say(client, "schedule", task["id"], due_at="2027-03-01T08:00:00Z")
    [after] = events_of(client)
    assert (after["uid"], after["status"]) == (before["uid"], "CONFIRMED")
    assert after["sequence"] > before["sequence"]
    assert after.decoded("dtstart") == date(2027, 3, 1)


def test_the_fleets_health_shows_the_last_forecast(
    inside: Insides, planner: Planner, client: httpx.Client
) -> None:
    look(planner)
    [a, b] = client.get(f"{V1}/health").json()["items"]
    [outlook] = inside.table(Outlook)
    assert a["band95_lower"] < a["state_of_health"] < a["band95_upper"]
    assert a["limit_odometer"]["value"] == outlook.odometer
    assert (a["health_limit"], a["limit_at"]["value"] is None) == (0.8, False)
    assert (b["vehicle_id"], b["state_of_health"], b["limit_odometer"]) == ("b", None, None)
    [only] = client.get(f"{V1}/health", params={"soh__lt": 1.0}).json()["items"]
    assert only["vehicle_id"] == "a"


def test_forecasting_rests_in_proportion_to_its_work(inside: Insides) -> None:
    now = iter([100.0, 102.0, 105.0, 119.9, 120.1, 120.2])  # 2 s of work: 18 s of rest
    planner = Planner(inside.store, inside.catalogue, lambda: inside.now, lambda: next(now))
    assert planner.turn()
    assert not planner.turn()
    assert not planner.turn()
    rule(inside, health_limit=0.7)
    assert planner.turn()


def test_a_page_of_vehicles_is_looked_at_once_for_all_that_are_due_in_it(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.take(inside.car("c").status(), inside.car("c").breach(4))
    inside.work()
    looks: list[str] = []
    after = maintenance.after

    def counted(db: Session, vehicle_id: str, limit: int) -> Any:
        looks.append(vehicle_id)
        return after(db, vehicle_id, limit)

    monkeypatch.setattr(maintenance, "after", counted)
    planner = Planner(inside.store, inside.catalogue, lambda: inside.now, lambda: 1.0)
    turned = [planner.turn() for _ in range(2)]
    assert (turned, looks) == ([True, True], [""])
    assert {row.vehicle_id for row in inside.table(Outlook)} >= {"a", "c"}


def test_a_vehicle_without_enough_trips_says_so(tmp_path: Path) -> None:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    inside.take(inside.car("a").status(), inside.car("a").breach(4))
    inside.work()
    look(Planner(inside.store, inside.catalogue, lambda: inside.now, lambda: 1.0))
    [outlook] = inside.table(Outlook)
    assert "too few trips" in outlook.problem
    assert inside.table(MaintenanceTask) == []
    inside.store.close()


def test_the_commands_do_what_the_api_does(
    planner: Planner,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*words: object) -> tuple[int, str, str]:
        return twin_cloud(monkeypatch, capsys, *words, "--server", str(client.base_url))

    look(planner)
    [task] = tasks(client)
    assert "battery_health" in run("maintenance", "list")[1]
    assert "limit_odometer" in run("fleet-health")[1]
    number, why = str(task["id"]), ("--why", "slot")
    code, _, err = run("maintenance", "schedule", number, "--due", "2027-03-01", *why)
    assert (code, "is scheduled, due 2027-03-01" in err) == (0, True)
    assert "BEGIN:VEVENT" in run("maintenance", "calendar")[1]
    assert run("maintenance", "done", number, *why)[0] == 0
    assert run("maintenance", "dismiss", number, *why)[0] == 4
    assert run("maintenance", "add", "b", "coolant", "--due", "2027-01-01", *why)[0] == 0
    assert "coolant" in run("maintenance", "history", "b")[1]
