"""Several processes write to one PostgreSQL: no count is lost, no breach is settled twice."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import text
from sqlmodel import col, select

from cloud.errors import OvertakenError, StoreError, StoreUnavailableError
from cloud.intake.interpretation import Delivery
from cloud.location import PostgresUrl
from cloud.store import events, locks, pending_breaches, verification
from cloud.store.database import Reader, Store
from cloud.store.event_tables import Event
from cloud.store.tables import Breach, Quarantine, Trip, Vehicle
from cloud.store.verification import Verified
from demo.database import PrivatePostgres
from tests.cloud_doubles import NOW, FailingCommits, Insides, write_bundle
from tests.waiting import eventually

WRITERS = 4


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def services(
    tmp_path: Path, bundle_path: Path, postgres_database: PostgresUrl
) -> Iterator[list[Insides]]:
    """Services, each with connections of its own, on one database."""
    made = [Insides(tmp_path, bundle_path, postgres_database) for _ in range(WRITERS)]
    yield made
    for one in made:
        one.store.close()


def at_once(*tasks: Callable[[], object]) -> None:
    """Run them on threads that begin together; an exception of one is the test's."""
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], object]) -> None:
        gate.wait()
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        list(pool.map(run, tasks))


def test_the_same_messages_at_several_ingests_are_each_one_fact(services: list[Insides]) -> None:
    cars = [services[0].car(f"car{i}") for i in range(8)]
    messages = [message for car in cars for message in (car.trip(1), car.breach(2), car.status())]

    def takes(inside: Insides, step: int) -> Callable[[], None]:
        return lambda: inside.take(*messages[::step], Delivery("nobody's", b"garbage"))

    at_once(*(takes(one, 1 if i % 2 else -1) for i, one in enumerate(services)))
    vehicles = services[0].table(Vehicle)
    assert [(v.trips, v.breaches) for v in vehicles] == [(1, 1)] * 8
    assert len(services[0].table(Trip)) == len(services[0].table(Breach)) == 8
    [refused] = services[0].table(Quarantine)
    assert refused.times == WRITERS


def test_no_trip_is_left_out_of_a_vehicles_totals(services: list[Insides]) -> None:
    cars = [services[0].car(f"car{i}") for i in range(4)]

    def takes(inside: Insides, first: int) -> Callable[[], None]:
        def run() -> None:
            for trip in range(first, first + 5):
                inside.take(*(car.trip(trip) for car in cars))

        return run

    at_once(*(takes(one, 10 * i + 1) for i, one in enumerate(services)))
    vehicles = services[0].table(Vehicle)
    assert [v.trips for v in vehicles] == [5 * WRITERS] * 4
    assert {v.odometer for v in vehicles} == {1000.0 * (10 * (WRITERS - 1) + 5) + 320.0}


def test_several_workers_settle_each_breach_once_and_in_odometer_order(
    services: list[Insides],
) -> None:
    cars = [services[0].car(f"car{i}") for i in range(6)]
    services[0].take(*(car.breach(trip) for car in cars for trip in (5, 10, 15)))

    def works(inside: Insides) -> Callable[[], None]:
        def run() -> None:
            while "pending" in inside.breach_states().values():
                with contextlib.suppress(OvertakenError):
                    inside.worker.turn()

        return run

    at_once(*(works(one) for one in services))
    for car in cars:
        rows = services[0].rows(car.vehicle_id)
        assert [(row.number, row.odometer) for row in rows] == [
            (1, 5000.0),
            (2, 10000.0),
            (3, 15000.0),
        ]
    assert set(services[0].breach_states().values()) == {"calibrated"}
    with services[0].store.read() as db:
        found = list(verification.verify_all(db, verification.remembered_keys(db)))
    assert [type(one) for one in found] == [Verified] * 6


def test_a_worker_that_was_taken_for_dead_settles_nothing_a_second_time(
    services: list[Insides],
) -> None:
    slow, quick, *_ = services
    slow.take(slow.car().breach(5), slow.car("other").breach(5))
    calibrations = slow.worker._calibrations
    [items] = calibrations._next(None)
    decisions = calibrations._decide(slow.bundle.sha256, items)
    quick.work()
    with pytest.raises(OvertakenError):
        calibrations._commit(items, decisions)
    assert (len(slow.rows()), len(slow.rows("other"))) == (1, 1)
    with pytest.raises(OvertakenError), slow.store.write() as db:
        pending_breaches.settle(db, [], [items[0].breach], NOW)


def test_what_was_decided_before_a_refusal_came_is_decided_anew(services: list[Insides]) -> None:
    slow, quick, *_ = services
    car = slow.car()
    slow.take(car.breach(5))
    slow.work()
    slow.take(car.breach(10))
    calibrations = slow.worker._calibrations
    [items] = calibrations._next(None)
    decisions = calibrations._decide(slow.bundle.sha256, items)
    quick.take(car.acknowledgement(slow.rows()[0], "refused"))
    with pytest.raises(OvertakenError):
        calibrations._commit(items, decisions)
    slow.work()
    assert slow.rows()[-1].number == 2
    assert slow.breach_states() == {"trip5": "calibrated", "trip10": "calibrated"}


def test_who_reads_events_up_to_an_id_has_missed_none(postgres_database: PostgresUrl) -> None:
    store = Store(postgres_database)
    done = threading.Event()
    seen: list[int] = []

    def writes() -> None:
        for _ in range(20):
            with store.write() as db:
                events.add(db, "first", NOW)
                db.connection().execute(text("SELECT pg_sleep(random() / 500)"))
                events.add(db, "second", NOW)

    def reads() -> None:
        while True:
            is_last = done.is_set()
            with store.read() as db:
                after = seen[-1] if seen else 0
                ids = select(Event.id).where(col(Event.id) > after).order_by(col(Event.id))
                seen.extend(one for one in db.exec(ids) if one is not None)
            if is_last:
                return

    reader = threading.Thread(target=reads)
    reader.start()
    at_once(*([writes] * WRITERS))
    done.set()
    reader.join()
    assert len(seen) == len(set(seen)) == 40 * WRITERS
    store.close()


def test_writers_in_each_others_way_are_told_to_try_again(postgres_database: PostgresUrl) -> None:
    store = Store(postgres_database)
    with store.write() as db:
        locks.add_vehicles(db, ["a", "b"], NOW)
    gate = threading.Barrier(2)
    told: list[Exception] = []

    def holds(first: str, then: str) -> Callable[[], None]:
        def run() -> None:
            try:
                with store.write() as db:
                    locks.vehicles(db, [first])
                    gate.wait()
                    locks.vehicles(db, [then])
            except StoreUnavailableError as error:
                told.append(error)

        return run

    at_once(holds("a", "b"), holds("b", "a"))
    assert "deadlock" in str(told.pop())
    assert told == []
    store.close()


@pytest.mark.parametrize("asks_again", [True, False])
@pytest.mark.parametrize("how", ["read", "write"])
def test_who_stood_still_in_a_transaction_is_told_to_try_again(
    postgres_database: PostgresUrl, how: str, *, asks_again: bool
) -> None:
    """As anything but the database's failure it would quarantine what was in hand."""
    store = Store(postgres_database)
    session = store.read if how == "read" else store.write

    def stand_still() -> None:
        with session() as db:
            db.connection().execute(text("SET LOCAL idle_in_transaction_session_timeout = 100"))
            pid = db.connection().execute(text("SELECT pg_backend_pid()")).scalar_one()
            eventually(lambda: has_ended(postgres_database, pid), what="the end of it")
            if asks_again:
                db.connection().execute(text("SELECT 1"))

    with pytest.raises(StoreUnavailableError):
        stand_still()
    with store.write() as db:
        locks.add_vehicles(db, ["a"], NOW)
    store.close()


def has_ended(database: PostgresUrl, pid: int) -> bool:
    with psycopg.connect(database.full) as db:
        asked = db.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid])
        return asked.fetchone() is None


def test_a_commit_that_fails_leaves_nothing_and_the_next_one_succeeds(
    postgres_database: PostgresUrl,
) -> None:
    store = Store(postgres_database)
    commits = FailingCommits(store, RuntimeError("no commit"))
    with pytest.raises(RuntimeError, match="no commit"), store.write() as db:
        locks.add_vehicles(db, ["a"], NOW)
    commits.close()
    with store.write() as db:
        assert locks.vehicles(db, ["a"]) == {}
    store.close()


def test_nothing_is_written_through_a_reader(postgres_database: PostgresUrl) -> None:
    reader = Reader(postgres_database)
    with pytest.raises(Exception, match="read-only transaction"), reader.read() as db:
        db.connection().execute(text("UPDATE vehicle SET trips = 0"))
    reader.close()


def test_a_server_that_restarts_is_waited_for(bundle_path: Path, tmp_path: Path) -> None:
    with PrivatePostgres(durable=False) as server:
        inside = Insides(tmp_path, bundle_path, PostgresUrl(server.url()))
        inside.take(inside.car().trip(1))
        server.kill()
        with pytest.raises(StoreUnavailableError), inside.store.read() as db:
            db.connection().execute(text("SELECT 1"))
        server.start()
        inside.take(inside.car().trip(2))
        assert inside.table(Vehicle)[0].trips == 2
        inside.store.close()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://twin:secret@/none?host={folder}", "does not exist"),
        ("postgresql://twin:secret@/x?host=/nowhere", "No such file"),
    ],
)
def test_a_server_that_cannot_be_used_is_said_without_the_password(
    postgres: PrivatePostgres, url: str, why: str
) -> None:
    with pytest.raises(StoreError, match=why) as told:
        Store(PostgresUrl(url.format(folder=postgres.folder)))
    assert "secret" not in str(told.value)
    assert "secret" not in repr(told.value)
