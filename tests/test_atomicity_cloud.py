"""In the cloud, a revision and the state of its breach are committed together or not at all.

INVARIANT 1: one outcome for each breach, wherever the process dies or the disk refuses.
INVARIANT 4: what is committed after a fault continues the chain as if nothing had happened.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from cloud.errors import StoreUnavailableError
from cloud.store import verification
from cloud.store.database import Store
from cloud.store.tables import Breach, RevisionRow, Vehicle
from cloud.store.verification import Verified
from tests.cloud_doubles import FailingCommits, Insides, write_bundle

ROOT = Path(__file__).resolve().parent.parent
CARS = ("a", "b")


def disk_error() -> OperationalError:
    return OperationalError("", None, sqlite3.OperationalError("database or disk is full"))


class FailingStatement:
    """Carry out a statement that begins with `start`, then let it fail; `times` in all."""

    def __init__(self, store: Store, start: str, error: BaseException, times: int = 1) -> None:
        self._engine, self._start, self._error, self.left = store._writer, start, error, times
        event.listen(self._engine, "after_cursor_execute", self._fail)

    def _fail(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if self.left and statement.startswith(self._start):
            self.left -= 1
            raise self._error

    def close(self) -> None:
        event.remove(self._engine, "after_cursor_execute", self._fail)


WRITES = {
    "revision": "INSERT INTO revision",
    "breach": "UPDATE breach",
    "vehicle": "UPDATE vehicle",
}


def fail(inside: Insides, write: str) -> FailingStatement | FailingCommits:
    if write == "commit":
        return FailingCommits(inside.store, disk_error())
    return FailingStatement(inside.store, WRITES[write], disk_error())


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    """Two vehicles, of which `a` has a revision, with a pending breach each."""
    inside = Insides(tmp_path, bundle_path)
    inside.take(inside.car("a").breach(5))
    inside.work()
    inside.take(*(inside.car(name).breach(10) for name in CARS))
    yield inside
    inside.store.close()


def committed(inside: Insides) -> list[list[Any]]:
    """Revisions, states of breaches and states of estimates, as another connection sees them."""
    revisions = [(row.vehicle_id, row.number, row.hash) for row in inside.table(RevisionRow)]
    breaches = [(row.message_id, row.state, row.decided_at) for row in inside.table(Breach)]
    vehicles = [(row.calibrations, row.failures) for row in inside.table(Vehicle)]
    return [revisions, breaches, vehicles]


def assert_in_step(inside: Insides) -> None:
    """A breach is calibrated exactly when it has its one revision; every chain holds."""
    causes = Counter(row.cause_message_id for row in inside.table(RevisionRow))
    states = {row.message_id: row.state for row in inside.table(Breach)}
    calibrated = {message_id for message_id, state in states.items() if state == "calibrated"}
    assert causes == dict.fromkeys(calibrated, 1)
    with inside.store.read() as db:
        keys = verification.remembered_keys(db)
        found = list(verification.verify_all(db, keys))
    assert all(isinstance(one, Verified) for one in found), found


def numbers(inside: Insides) -> dict[str, list[int]]:
    return {name: [row.number for row in inside.rows(name)] for name in CARS}


def refuse_once(inside: Insides, write: str) -> None:
    """The disk is full at this write of the worker's next round."""
    failing = fail(inside, write)
    with pytest.raises(StoreUnavailableError):
        inside.work()
    assert failing.left == 0
    failing.close()
    inside.worker.wake()


@pytest.mark.parametrize("write", [*WRITES, "commit"])
def test_a_round_with_one_failed_write_settles_nothing_and_the_next_one_each_breach_once(
    inside: Insides, write: str
) -> None:
    before, told = committed(inside), len(inside.publisher.sent)
    refuse_once(inside, write)
    assert (committed(inside), len(inside.publisher.sent)) == (before, told)
    inside.work()
    assert_settled_once(inside)


def assert_settled_once(inside: Insides) -> None:
    assert numbers(inside) == {"a": [1, 2], "b": [1]}
    assert set(inside.breach_states().values()) == {"calibrated"}
    assert_in_step(inside)


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import event
from tests.cloud_doubles import Insides
inside = Insides(Path(sys.argv[1]), Path(sys.argv[2]))
def die(*arguments):
    if sys.argv[3] == "COMMIT" or arguments[2].startswith(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
kind = "commit" if sys.argv[3] == "COMMIT" else "after_cursor_execute"
event.listen(inside.store._writer, kind, die)
inside.work()
"""


@pytest.mark.parametrize("at", [*WRITES.values(), "COMMIT"])
def test_a_round_killed_at_any_write_settles_nothing_and_the_next_life_each_breach_once(
    inside: Insides, bundle_path: Path, at: str
) -> None:
    before = committed(inside)
    command = [sys.executable, "-c", KILLED, str(inside.path.parent), str(bundle_path), at]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == -9
    assert committed(inside) == before
    inside.start()
    inside.work()
    assert_settled_once(inside)


@pytest.mark.parametrize("write", WRITES)
def test_a_round_that_is_taken_apart_makes_each_revision_once(inside: Insides, write: str) -> None:
    failing = FailingStatement(inside.store, WRITES[write], RuntimeError("spoilt"))
    inside.work()
    assert failing.left == 0
    assert numbers(inside) == {"a": [1, 2], "b": [1]}
    assert_in_step(inside)


@pytest.mark.parametrize("write", WRITES)
def test_a_breach_whose_outcome_cannot_be_stored_is_declined_without_a_revision(
    inside: Insides, write: str
) -> None:
    failing = FailingStatement(inside.store, WRITES[write], RuntimeError("spoilt"), times=2)
    inside.work()
    assert failing.left == 0
    assert numbers(inside) == {"a": [1], "b": [1]}
    assert "spoilt" in inside.publisher.declined[inside.car("a").breach(10).message_id]
    assert_in_step(inside)


def test_after_every_fault_the_next_breach_continues_the_chain(inside: Insides) -> None:
    for trip, write in enumerate((*WRITES, "commit"), start=3):
        refuse_once(inside, write)
        inside.work()
        inside.take(inside.car("a").breach(5 * trip))
    inside.work()
    assert numbers(inside) == {"a": [1, 2, 3, 4, 5, 6], "b": [1]}
    assert_in_step(inside)
