"""Every list query touches a bounded number of rows, however large the fleet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, event, insert, text
from sqlmodel import Session

from cloud.location import Location, PostgresUrl
from cloud.store import (
    backlog,
    battery_orders,
    breach_pages,
    event_pages,
    expectations,
    fleet_priors,
    judged,
    pages,
    pending_breaches,
    releases,
    revisions,
    roll_back_orders,
    vehicle_pages,
)
from cloud.store.database import Store
from cloud.store.event_tables import Event
from cloud.store.tables import Breach, FleetPriorRow, Release, RevisionRow, Trip, Vehicle
from common.messages import Acknowledgement, message_id
from common.revision import GENESIS
from demo.database import PrivatePostgres

pytestmark = pytest.mark.xdist_group("plans")  # its fleets are written once
VEHICLES, EACH = 2000, 6
BUNDLE = "ab" * 32
MOST_ROWS = 1500
"""Far below the 12,000 rows of a table; above 100 on a page times what a join adds to each."""
ONE = "car-01000"
SOME = [f"car-{number:05d}" for number in range(0, 640, 10)]
PENDING = 50
SAID = [
    Acknowledgement(
        vehicle_id=name,
        message_id=message_id(name, "trip", "ack"),
        revision=EACH,
        revision_hash="ab" * 32,
        verdict="applied",
        decided_at=1.0,
    )
    for name in SOME
]


def of_vehicle(number: int) -> dict[str, Any]:
    vehicle = Vehicle(
        vehicle_id=f"car-{number:05d}",
        first_seen_at=1.0,
        last_seen_at=float(number),
        bundle=BUNDLE,
        trips=EACH,
        odometer=float(number * 37 % VEHICLES),
        soh=number * 41 % VEHICLES / VEHICLES,
        drift=number * 43 % VEHICLES / VEHICLES,
        last_trip_error_v=number * 47 % VEHICLES / VEHICLES,
        breaches=EACH,
        started=number % 200 != 0,
    )
    return vehicle.model_dump(exclude={"lane"})


def revision(vehicle: int, number: int) -> dict[str, Any]:
    vehicle_id = f"car-{vehicle:05d}"
    return {
        "vehicle_id": vehicle_id,
        "number": number,
        "bundle": BUNDLE,
        "odometer": float(number),
        "cause_message_id": f"{vehicle_id}-{number}",
        "content": b"{}",
        "hash": f"{vehicle_id}-{number}",
        "key_id": "k",
        "signature": "s",
        "created_at": float(number),
        "published_at": 2.0 if vehicle % 100 else None,
        "verdict": "applied" if vehicle % 100 or number < EACH else None,
        "kind": "breach",
        "parent_hash": f"{vehicle_id}-{number - 1}" if number > 1 else GENESIS,
    }


def breach(vehicle: int, trip: int) -> dict[str, Any]:
    is_last = trip == EACH
    state = "pending" if is_last and vehicle % (VEHICLES // PENDING) == 0 else "calibrated"
    if is_last and vehicle % 100 == 7:
        state = "declined"
    row = Breach(
        vehicle_id=f"car-{vehicle:05d}",
        message_id=f"car-{vehicle:05d}-{trip}",
        trip_id=str(trip),
        bundle=BUNDLE,
        revision=trip - 1,
        odometer=float(trip),
        error_v=0.1,
        threshold_v=0.05,
        trace=b"{}",
        received_at=1.0,
        state=state,
    )
    return row.model_dump(exclude={"id", "lane"})


def trip(vehicle: int, number: int) -> dict[str, Any]:
    row = Trip(
        vehicle_id=f"car-{vehicle:05d}",
        message_id=f"car-{vehicle:05d}-{number}",
        trip_id=str(number),
        bundle=BUNDLE,
        revision=0,
        started_at=1.0,
        duration_s=1.0,
        odometer_start=float(number),
        odometer_end=number + 1.0,
        samples=1,
        refused_samples=0,
        error_v=0.1,
        band95_v=0.1,
        coverage95=1.0,
        feature_means=b"[]",
        breach=False,
        partial=False,
        received_at=float(vehicle),
    )
    return row.model_dump(exclude={"id"})


def fill(db: Session) -> None:
    """A fleet whose tables are far longer than any page."""
    every = [(vehicle, number) for vehicle in range(VEHICLES) for number in range(1, EACH + 1)]
    connection = db.connection()
    connection.execute(insert(Vehicle), [of_vehicle(vehicle) for vehicle in range(VEHICLES)])
    connection.execute(insert(RevisionRow), [revision(*one) for one in every])
    connection.execute(insert(Breach), [breach(*one) for one in every])
    connection.execute(insert(Trip), [trip(*one) for one in every])
    prior = {"bundle": BUNDLE, "version": 1, "content": b"{}", "hash": "h", "made_at": 1.0}
    prior |= {"fleet_vehicles": 1, "fleet_revisions": 1}
    connection.execute(insert(FleetPriorRow), [prior])
    release = {"bundle": BUNDLE, "reason": "", "ordered_at": 1.0}
    connection.execute(
        insert(Release),
        [
            {**release, "vehicle_id": f"car-{vehicle:05d}", "number": number, "state": "installed"}
            for vehicle, number in every
        ],
    )
    connection.execute(
        insert(Event),
        [
            {"at": 1.0, "kind": "x", "vehicle_id": f"car-{vehicle:05d}", "detail": b"{}"}
            for vehicle, _ in every
        ],
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    location: Location = tmp_path_factory.mktemp("fleet") / "twin.db"
    server: PrivatePostgres | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        location = PostgresUrl(server.create("fleet"))
    opened = Store(location)
    with opened.write() as db:
        fill(db)
    with opened.write() as db:
        db.connection().execute(text("ANALYZE"))
    yield opened
    opened.close()
    if server is not None:
        server.drop("fleet")


QUERIES: dict[str, Callable[[Session], object]] = {
    **{
        f"vehicles by {sort}": lambda db, sort=sort: vehicle_pages.page(  # type: ignore[misc]
            db, None, 100, sort=sort, conditions=[]
        )
        for sort in ("id", "-soh", "drift", "-error", "odometer", "-breaches", "last_seen")
    },
    "trips of a vehicle": lambda db: pages.trips(db, None, 100, vehicle_id=ONE),
    "revisions of a vehicle": lambda db: pages.revisions(db, None, 100, vehicle_id=ONE),
    "breaches of a vehicle": lambda db: breach_pages.page(db, None, 100, vehicle_id=ONE),
    "provisionals of a vehicle": lambda db: pages.provisionals(db, None, 100, vehicle_id=ONE),
    "quarantine": lambda db: pages.quarantined(db, None, 100, cohorts=None),
    "next breaches": lambda db: pending_breaches.next_breaches(db, [BUNDLE], 64),
    "next breaches of a lane": lambda db: pending_breaches.next_breaches(db, [BUNDLE], 64, [3]),
    "what breaches are judged against": lambda db: pending_breaches.with_histories(
        db, pending_breaches.next_breaches(db, [BUNDLE], 64)
    ),
    "what vehicles should run": lambda db: list(expectations.of(db, SOME)),
    "revisions that acknowledgements name": lambda db: judged.named_by(db, SAID),
    "first trips of some": lambda db: fleet_priors.first_trips(db, SOME),
    "newest of some": lambda db: revisions.newest_of(db, SOME),
    "replacements of some": lambda db: revisions.replacements(db, SOME),
    "newest standing": lambda db: revisions.newest_standing(db, ONE, BUNDLE),
    "unanswered": lambda db: revisions.unanswered(db, ONE, 500),
    "unheard": lambda db: revisions.unheard(db, 1, 500),
    "unpublished": lambda db: revisions.unpublished(db, 1e9),
    "battery orders": lambda db: battery_orders.pending(db, 64),
    "newcomers": lambda db: battery_orders.newcomers(db, 64, 1e9),
    "roll-back orders": lambda db: roll_back_orders.pending(db, 64),
    "ordered releases": lambda db: releases.ordered(db, 64),
    "unheard releases": releases.newest_unheard,
    "newest release": lambda db: releases.newest(db, ONE),
    "events after one": lambda db: event_pages.after(db, VEHICLES * EACH // 2, 100),
    "backlog": backlog.pending,
    "webhook deliveries that wait or were given up": backlog.deliveries,
}


@pytest.mark.parametrize("name", QUERIES)
def test_a_list_query_touches_a_bounded_number_of_rows(store: Store, name: str) -> None:
    asked: list[tuple[str, Any]] = []

    def listen(_c: object, _k: object, statement: str, parameters: Any, *_: object) -> None:
        asked.append((statement, parameters))

    with store.read() as db:
        connection = db.connection()
        event.listen(connection, "before_cursor_execute", listen)
        QUERIES[name](db)
        event.remove(connection, "before_cursor_execute", listen)
        assert asked
        for statement, parameters in asked:
            if connection.dialect.name == "sqlite":
                require_index(plan_of_sqlite(connection, statement, parameters))
            else:
                touched, plan = rows_of_postgres(connection, statement, parameters)
                assert touched <= MOST_ROWS, plan


def plan_of_sqlite(connection: Connection, statement: str, parameters: Any) -> Sequence[str]:
    rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return [row[3] for row in rows]


def require_index(plan: Sequence[str]) -> None:
    """No walk over a table but along an index, and no order that is made by sorting a table."""
    for line in plan:
        is_walk = re.match(r"SCAN (trip|breach|revision|vehicle|release|event|quarantine)\b", line)
        assert not is_walk or "INDEX" in line or "PRIMARY KEY" in line, plan


def rows_of_postgres(connection: Connection, statement: str, parameters: Any) -> tuple[int, str]:
    """How many rows every scan has read, also those that it then left out."""
    asked = f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {statement}"
    [plan] = connection.exec_driver_sql(asked, parameters).scalar_one()
    return _read(plan["Plan"]), msgspec.json.format(msgspec.json.encode(plan)).decode()


def _read(node: dict[str, Any]) -> int:
    below = sum(_read(child) for child in node.get("Plans", []))
    if "Scan" not in node["Node Type"]:
        return below
    left_out = node.get("Rows Removed by Filter", 0)
    return int(below + (node["Actual Rows"] + left_out) * node["Actual Loops"])


def test_a_query_without_an_index_would_be_seen(store: Store) -> None:
    query = "SELECT * FROM trip WHERE trip_id = 'x' ORDER BY trip_id"
    with store.read() as db:
        connection = db.connection()
        if connection.dialect.name == "sqlite":
            with pytest.raises(AssertionError):
                require_index(plan_of_sqlite(connection, query, ()))
        else:
            assert rows_of_postgres(connection, query, ())[0] > MOST_ROWS
