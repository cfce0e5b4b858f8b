"""On the vehicle, what belongs together is on the disk together or not at all.

INVARIANT 1: a breach, its kept trace and its trip's summary are one transaction.
INVARIANT 5: parameters, the breach they settle and their acknowledgement are one transaction; what
was judged stays judged over a restart; a stored revision that is unfit is not run.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from common import calibration
from common.bundle import Bundle
from common.messages import Acknowledgement, Breach, TripSummary, decode
from edge_agent.mqtt.link import Received
from edge_agent.storage import kept, outbox
from tests.support_edge import FOREIGN_KEY, VEHICLE, Rig, aged_bundle, revision_for, signed

PARAMETERS = f"twin/v1/{VEHICLE}/parameters"
Rows = dict[str, list[Any]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


@pytest.fixture
def rig(tmp_path: Path, bundle: Bundle) -> Iterator[Rig]:
    opened = Rig(tmp_path / "state.db", bundle, outbox_messages=4)
    opened.connect()
    yield opened
    opened.state.close()


@dataclass(frozen=True)
class Write:
    """One of the writes of a transaction: the `call`-th of a function."""

    module: ModuleType
    name: str
    call: int = 1


def fail_after(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """Carry the write out, and then report that the disk is full; once."""
    real, calls = getattr(write.module, write.name), itertools.count(1)

    def failing(*arguments: Any) -> Any:
        result = real(*arguments)
        if next(calls) == write.call:
            raise sqlite3.OperationalError("database or disk is full")
        return result

    monkeypatch.setattr(write.module, write.name, failing)


def on_disk(rig: Rig, *tables: str) -> Rows:
    """What another process sees: committed rows alone."""
    with closing(sqlite3.connect(f"file:{rig.path}?mode=ro", uri=True)) as db:
        return {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in tables}


def receive(rig: Rig, payload: bytes) -> None:
    rig.tell(Received(PARAMETERS, payload))


def restart(rig: Rig) -> None:
    rig.reopen()
    rig.connect()


def verdicts(rig: Rig) -> list[tuple[int, str]]:
    """(revision, reason) of each verdict that waits for the cloud; applied: no reason.

    That a trial was confirmed is none on a message.
    """
    db = rig.state.connection
    waiting = [entry.seq for entry in outbox.waiting(db, 100) if entry.kind == "ack"]
    answers = [decode(outbox.payload(db, seq), Acknowledgement) for seq in waiting]
    return [(a.revision, a.reason) for a in answers if a.verdict != "confirmed"]


# ---- breach, trace and summary --------------------------------------------------------------

TRIP = ("outbox", "kept_trace", "finished_trip", "counter")
TRIP_WRITES = {
    "breach": Write(outbox, "put", 1),
    "trace": Write(kept, "keep_trace"),
    "summary": Write(outbox, "put", 2),
    "finished trip": Write(kept, "finish_trip"),
    "eviction": Write(outbox, "evict"),
}
FULL_WRITES = {**TRIP_WRITES, "count": Write(kept, "count")}


def save_again(rig: Rig) -> None:
    """The time has come at which the agent tries once more."""
    rig.clock.now += 10.0
    rig.agent.poll()


@pytest.mark.parametrize("write", TRIP_WRITES)
def test_a_trip_with_one_failed_write_waits_in_memory_and_is_then_stored_whole_and_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    fail_after(monkeypatch, TRIP_WRITES[write])
    rig.drive()
    assert on_disk(rig, *TRIP) == {name: [] for name in TRIP}
    assert rig.link.payloads("breach") == rig.link.payloads("trip") == []
    assert not rig.agent.is_settled()
    save_again(rig)
    assert_whole(rig)
    stored = on_disk(rig, *TRIP)
    save_again(rig)
    rig.drive()  # the same file, replayed
    assert on_disk(rig, *TRIP) == {**stored, "counter": [("trips_passed_over", 1)]}
    assert rig.agent.statistics.trips == rig.agent.statistics.breaches == 1


def assert_whole(rig: Rig) -> None:
    """The breach of trip-1, its trace and its summary: each once, on the disk and on the link."""
    [breach] = [decode(payload, Breach) for payload in rig.link.payloads("breach")]
    [summary] = [decode(payload, TripSummary) for payload in rig.link.payloads("trip")]
    assert breach.trip_id == summary.trip_id == "trip-1"
    db = rig.state.connection
    waiting = [entry.message_id for entry in outbox.waiting(db, 100)]
    assert waiting == [breach.message_id, summary.message_id]
    assert kept.awaiting(db) == [breach.message_id]
    assert kept.is_finished(db, "trip-1")


@pytest.mark.parametrize("write", FULL_WRITES)
def test_what_a_trip_pushes_out_of_a_full_outbox_stays_until_the_trip_is_stored(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    for number in range(4):
        rig.drive(f"silent-{number}", gain=1.0, odometer=1000.0 * number)
    before = on_disk(rig, *TRIP)
    fail_after(monkeypatch, FULL_WRITES[write])
    rig.drive("trip-1", odometer=5000.0)
    assert on_disk(rig, *TRIP) == before
    save_again(rig)
    kinds = [entry.kind for entry in outbox.waiting(rig.state.connection, 100)]
    assert kinds == ["trip", "trip", "breach", "trip"]
    assert kept.counters(rig.state.connection)["dropped_trip"] == 2


# ---- parameters, breach and acknowledgement ---------------------------------------------------

REVISION = ("outbox", "kept_trace", "parameters")
OLD, BETTER, WORSE = [1.02, 0.0], [1.1, 0.0], [0.9, 0.0]
VERDICT_WRITES = {
    "acknowledgement": Write(outbox, "put"),
    "judged": Write(kept, "write_parameters", 1),
    "settled breach": Write(kept, "settle"),
}
APPLIED_WRITES = {**VERDICT_WRITES, "on trial": Write(kept, "write_parameters", 2)}
CASES = [
    *((write, BETTER, "") for write in APPLIED_WRITES),
    *((write, WORSE, "worse_on_trace") for write in VERDICT_WRITES),
]


def theta(rig: Rig) -> list[float]:
    return [float(value) for value in rig.agent.twin.estimate.theta]


@pytest.mark.parametrize(("write", "found", "reason"), CASES)
def test_a_verdict_with_one_failed_write_was_never_given_and_is_then_given_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, write: str, found: list[float], reason: str
) -> None:
    receive(rig, signed(revision_for(rig.bundle, theta=OLD)))
    rig.drive()
    before, news = on_disk(rig, *REVISION), revision_for(rig.bundle, number=2, theta=found)
    fail_after(monkeypatch, APPLIED_WRITES[write])
    receive(rig, signed(news))
    assert (theta(rig), on_disk(rig, *REVISION)) == (OLD, before)
    restart(rig)
    assert (rig.agent.twin.revision, theta(rig)) == (1, OLD)
    assert (verdicts(rig), rig.agent.is_settled()) == ([(1, "")], False)
    for _ in range(2):
        receive(rig, signed(news))
    assert theta(rig) == (OLD if reason else BETTER)
    assert (verdicts(rig), rig.agent.is_settled()) == ([(1, ""), (2, reason)], True)
    restart(rig)
    assert theta(rig) == (OLD if reason else BETTER)


# ---- what was judged stays judged -------------------------------------------------------------

Again = Callable[[Rig], None]
AGAIN: dict[str, Again] = {"in the same life": lambda rig: None, "after a restart": restart}


@pytest.fixture(params=AGAIN)
def again(request: pytest.FixtureRequest) -> Again:
    return AGAIN[request.param]


@pytest.fixture
def refused(rig: Rig) -> Rig:
    """A vehicle that refused revision 2 because it is worse on the trace."""
    rig.drive()
    receive(rig, signed(revision_for(rig.bundle, number=2, theta=WORSE)))
    assert verdicts(rig) == [(2, "worse_on_trace")]
    return rig


@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2)], ids=str)
def test_after_a_refusal_a_number_that_is_not_higher_is_out_of_turn(
    refused: Rig, again: Again, numbers: tuple[int, ...]
) -> None:
    for number in numbers:
        again(refused)
        receive(refused, signed(revision_for(refused.bundle, number=number, theta=BETTER)))
    assert verdicts(refused)[1:] == [(n, "older" if n < 2 else "conflicting") for n in numbers]
    again(refused)
    assert refused.agent.twin.revision == 0


@pytest.mark.parametrize(("found", "reason"), [(BETTER, ""), (WORSE, "worse_on_trace")])
def test_after_a_refusal_a_higher_number_is_judged(
    refused: Rig, again: Again, found: list[float], reason: str
) -> None:
    again(refused)
    receive(refused, signed(revision_for(refused.bundle, number=3, theta=found)))
    assert verdicts(refused)[1:] == [(3, reason)]
    again(refused)
    assert refused.agent.twin.revision == (0 if reason else 3)


# ---- a stored revision that is unfit ------------------------------------------------------------

UNFIT: dict[str, Callable[[Bundle], bytes]] = {
    "out of bounds": lambda bundle: signed(revision_for(bundle, number=9, theta=[9.0, 0.0])),
    "wrong vehicle": lambda bundle: signed(revision_for(bundle, number=9, vehicle_id="car-2")),
    "another bundle": lambda bundle: signed(revision_for(bundle, number=9, bundle="ab" * 32)),
    "key no longer trusted": lambda bundle: signed(revision_for(bundle, number=9), FOREIGN_KEY),
    "edited": lambda bundle: signed(revision_for(bundle)).replace(b"1.1", b"1.2"),
    "torn": lambda bundle: signed(revision_for(bundle))[:200],
    "garbage": lambda bundle: b"\xff\x00 no revision",
}


def start_with(rig: Rig, content: bytes, *slots: str) -> None:
    """Start an agent that finds this in the slots of its parameters."""
    with rig.state.transaction() as db:
        for slot in slots:
            kept.write_parameters(db, slot, content)
    restart(rig)


def assert_takes(rig: Rig, number: int) -> None:
    """A good revision with this number is applied, acknowledged and kept."""
    receive(rig, signed(revision_for(rig.bundle, number=number, theta=BETTER)))
    assert (rig.agent.twin.revision, theta(rig)) == (number, BETTER)
    assert verdicts(rig)[-1] == (number, "")
    restart(rig)
    assert (rig.agent.twin.revision, theta(rig)) == (number, BETTER)


@pytest.mark.parametrize("unfit", UNFIT)
def test_a_stored_revision_that_is_unfit_is_not_run_and_the_clouds_next_one_is_taken(
    rig: Rig, unfit: str
) -> None:
    start_with(rig, UNFIT[unfit](rig.bundle), "current", "judged")
    assert rig.agent.status().revision == 0
    assert theta(rig) == calibration.prior(rig.bundle.manifest).theta.tolist()
    rig.drive()
    assert_takes(rig, number=10)


@pytest.mark.parametrize("unfit", UNFIT)
def test_what_is_unfit_sets_no_number_that_a_good_revision_must_exceed(
    rig: Rig, unfit: str
) -> None:
    start_with(rig, UNFIT[unfit](rig.bundle), "current", "judged")
    assert_takes(rig, number=1)


@pytest.mark.parametrize("damage", ["edited", "torn", "garbage"])
def test_a_revision_that_was_damaged_on_the_disk_gives_way_to_the_newest_that_is_whole(
    rig: Rig, damage: str
) -> None:
    receive(rig, signed(revision_for(rig.bundle, number=3, theta=BETTER)))
    start_with(rig, UNFIT[damage](rig.bundle), "trial")
    assert rig.agent.status().revision == 0
    assert_takes(rig, number=3)
