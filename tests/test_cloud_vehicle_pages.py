"""The list of vehicles: every filter, every order, and the figures that it is sorted by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlmodel import Session, SQLModel, col, create_engine, select

from cloud.api.access import Context
from cloud.api.vehicle_query import Sort
from cloud.store import evidence, vehicle_pages
from cloud.store.tables import Vehicle
from cloud.store.vehicle_pages import Wanted
from common.estimate_state import judge
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle

V1 = "/api/v1"
DAY_S = 86400.0
BUNDLES = ["bb" * 32, "cc" * 32]
SORTS: tuple[str, ...] = get_args(Sort)


def vehicle(index: int) -> Vehicle:
    """The first two of six know nothing; values repeat, so that ids must break the ties."""
    known = index >= 2
    return Vehicle(
        vehicle_id=f"{'van' if index % 2 else 'car'}-{index}",
        first_seen_at=NOW,
        last_seen_at=NOW - 60.0 * (index % 3) if known else None,
        bundle="bb" * 32 if index < 3 else "cc" * 32,
        online=None if index == 0 else index % 2 == 0,
        breaches=index % 2,
        trips=5,
        odometer=1000.0 * (index % 2) if known else None,
        last_trip_error_v=0.01 * (index % 3) if known else None,
        last_trip_received_at=NOW - DAY_S * 10 * index,
        soh=0.7 + 0.1 * (index % 3) if known else None,
        drift=0.001 * (index % 2) if known else None,
        calibrations=index,
        relative_std=0.3 if known else None,
        cohort="north" if index < 4 else "south",
    )


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    folder = tmp_path_factory.mktemp("list")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    with inside.store.write() as db:
        db.add_all(vehicle(index) for index in range(6))
    yield inside
    inside.store.close()


@pytest.fixture(scope="module")
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(Context(inside.store, inside.catalogue, lambda: NOW, {})) as client:
        yield client


def ids(client: httpx.Client, **params: Any) -> list[str]:
    """The whole list, in pages of two."""
    found: list[str] = []
    asked: dict[str, Any] = {"limit": 2, **params}
    while True:
        page = client.get(f"{V1}/vehicles", params=asked).json()
        found += [item["vehicle_id"] for item in page["items"]]
        if page["next"] is None:
            return found
        asked["cursor"] = page["next"]


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_shows_each_vehicle_once_and_the_unknown_last(
    client: httpx.Client, sort: str
) -> None:
    found = ids(client, sort=sort)
    assert sorted(found) == sorted(f"{'van' if i % 2 else 'car'}-{i}" for i in range(6))
    items = client.get(f"{V1}/vehicles", params={"sort": sort}).json()["items"]
    assert [item["vehicle_id"] for item in items] == found
    field = {"error": "last_trip_error_v", "last_seen": "last_seen_at"}
    name = sort.removeprefix("-")
    values = [item[field.get(name, name)] for item in items]
    known = [value for value in values if value is not None]
    assert known == sorted(known, reverse=sort.startswith("-"))
    assert values[: len(known)] == known


@pytest.mark.parametrize("sort", SORTS)
def test_a_page_of_every_order_is_read_off_an_index(inside: Insides, sort: str) -> None:
    """No sorting, no scan of the table: as many rows are touched as are given."""
    with inside.store.read() as db:
        plans = " ".join(plan for one in pages_of(db, sort) for plan in plan_of(db, one))
    assert "TEMP B-TREE" not in plans
    assert "INDEX" in plans
    assert "SCAN vehicle " not in plans.replace("SCAN vehicle USING", "")


def pages_of(db: Session, sort: str) -> list[Any]:
    """The statements of the first page and of one after it."""
    asked: list[Any] = []
    real: Any = db.exec

    def recorded(query: Any) -> Any:
        asked.append(query)
        return real(query)

    db.exec = recorded  # type: ignore[method-assign, assignment]
    first = vehicle_pages.page(db, None, 3, sort=sort, conditions=[])
    vehicle_pages.page(db, vehicle_pages.key(first[-1], sort), 9, sort=sort, conditions=[])
    return asked


def plan_of(db: Session, query: Any) -> list[str]:
    compiled = query.compile(db.get_bind(), compile_kwargs={"literal_binds": True})
    rows = db.connection().execute(text(f"EXPLAIN QUERY PLAN {compiled}"))
    return [f"{row.detail} " for row in rows]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"vehicle_id__startswith": "van"}, {1, 3, 5}),
        ({"vehicle_id__startswith": "VAN"}, set()),
        ({"bundle": "cc" * 32}, {3, 4, 5}),
        ({"cohort": "south"}, {4, 5}),
        ({"online": "true"}, {2, 4}),
        ({"online": "false"}, {1, 3, 5}),
        ({"soh__lt": 0.75}, {3}),
        ({"soh__gte": 0.85}, {2, 5}),
        ({"breaches__gte": 1, "online": "false"}, {1, 3, 5}),
        ({"breaches__gt": 1}, set()),
        ({"odometer__lte": 0}, {2, 4}),
        ({"error__gt": 0.015}, {2, 5}),
        ({"drift__gte": 0.001, "cohort": "north"}, {3}),
    ],
)
def test_filters_let_through_what_they_say(
    client: httpx.Client, params: dict[str, Any], expected: set[int]
) -> None:
    for sort in ("vehicle_id", "-soh"):
        found = {int(one.rsplit("-", 1)[1]) for one in ids(client, sort=sort, **params)}
        assert found == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sort", "colour"),
        ("sort", "--soh"),
        ("state", "good"),
        ("soh__lt", "nan"),
        ("soh__lt", "few"),
        ("soh__near", "0.8"),
        ("breaches__gte", "1.5"),
        ("online", "perhaps"),
        ("vehicle_id__startswith", "a%"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_by_name(
    client: httpx.Client, name: str, value: str
) -> None:
    found = problem(client.get(f"{V1}/vehicles", params={name: value}), 422)
    assert found["violations"][0]["where"] == f"query.{name}"


def test_a_cursor_of_another_order_is_refused(client: httpx.Client) -> None:
    following = client.get(f"{V1}/vehicles", params={"limit": 2, "sort": "-soh"}).json()["next"]
    problem(client.get(f"{V1}/vehicles", params={"sort": "soh", "cursor": following}), 422)


def test_ages_are_those_of_the_last_known_values(client: httpx.Client) -> None:
    items = {v["vehicle_id"]: v for v in client.get(f"{V1}/vehicles").json()["items"]}
    assert items["car-4"]["last_seen_age_s"] == 60
    assert items["car-4"]["last_trip_age_s"] == 40 * DAY_S
    assert items["car-0"]["last_seen_age_s"] is None


@given(
    st.builds(
        Vehicle,
        vehicle_id=st.just("v"),
        first_seen_at=st.just(0.0),
        estimate_state=st.sampled_from(["learning", "known", "stale", "doubtful"]),
        trips=st.integers(0, 4),
        calibrations=st.integers(0, 2),
        failures=st.integers(0, 4),
        relative_std=st.none() | st.sampled_from([0.1, 0.5, 0.6, 0.7, 0.9]),
        error_left=st.none() | st.sampled_from([0.5, 0.8, 0.9, 1.0, 1.2]),
        last_trip_received_at=st.none()
        | st.sampled_from([NOW - DAY_S * days for days in (0, 7, 8, 30, 31)]),
    )
)
def test_the_database_judges_a_state_as_the_code_does(one: Vehicle) -> None:
    engine = create_engine("sqlite://")
    SQLModel.metadata.create_all(engine, tables=[Vehicle.__table__])  # type: ignore[attr-defined]
    expected = judge(one.estimate_state, evidence.noted(one, NOW)).state  # type: ignore[arg-type]
    with Session(engine) as db:
        db.add(one)
        db.commit()
        assert db.exec(select(vehicle_pages.state_in_sql(NOW))).one() == expected
    engine.dispose()


def test_a_state_is_filtered_by_as_it_is_shown(inside: Insides) -> None:
    with inside.store.read() as db:
        for state in ("learning", "stale", "known", "doubtful"):
            wanted = vehicle_pages.conditions(Wanted(state=state), None, BUNDLES, NOW)
            rows = vehicle_pages.page(db, None, 9, sort="vehicle_id", conditions=wanted)
            found = {one.vehicle.vehicle_id for one in rows}
            shown = {
                one.vehicle_id
                for one in db.exec(select(Vehicle).order_by(col(Vehicle.vehicle_id)))
                if judge(one.estimate_state, evidence.noted(one, NOW)).state == state  # type: ignore[arg-type]
            }
            assert found == shown


def test_health_and_drift_are_noted_when_a_revision_is_made(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("figures")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    a = inside.car("a")
    inside.take(*(a.trip(n) for n in range(1, 6)), a.status(), a.breach(5, odometer=5000.0))
    inside.work()
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {})
    with serving(context) as client:
        listed = client.get(f"{V1}/vehicles").json()["items"][0]
        here = client.get(f"{V1}/vehicles/a/health", params={"odometer": 5000.0}).json()
        later = client.get(f"{V1}/vehicles/a/health", params={"odometer": 6000.0}).json()
        assert listed["figures_revision"] == 1
        assert listed["soh"] == pytest.approx(here["state_of_health"], rel=1e-6)
        assert listed["soh_std"] == pytest.approx(here["state_of_health_std"], rel=0.1)
        loss = here["state_of_health"] - later["state_of_health"]
        assert listed["drift"] == pytest.approx(loss, rel=1e-3)
        inside.take(a.status(bundle="ee" * 32))
        listed = client.get(f"{V1}/vehicles").json()["items"][0]
        assert (listed["soh"], listed["drift"], listed["figures_revision"]) == (None, None, None)
    inside.store.close()
