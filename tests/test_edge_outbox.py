"""The outbox keeps what was put, in order, once, until a receipt; what it must drop it counts.

A state machine runs it against a plain list, with restarts in between (INVARIANTS 1 and 7).
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from common.topics import Kind
from edge_agent.storage import kept, outbox
from edge_agent.storage.state import State

KINDS: tuple[Kind, ...] = ("trip", "ack", "breach")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state.db", "car-1", "0" * 64)
    yield opened
    opened.close()


def put(state: State, *messages: tuple[str, str, bytes]) -> None:
    with state.transaction() as db:
        for kind, message_id, payload in messages:
            outbox.put(db, kind, message_id, payload)  # type: ignore[arg-type]


def ids(state: State) -> list[str]:
    return [waiting.message_id for waiting in outbox.waiting(state.connection, 10_000)]


def test_the_same_message_again_changes_nothing(state: State) -> None:
    put(state, ("trip", "a", b"first"), ("trip", "b", b"x"), ("breach", "a", b"other"))
    first = outbox.waiting(state.connection, 10)[0]
    assert ids(state) == ["a", "b"]
    assert (first.kind, outbox.payload(state.connection, first.seq)) == ("trip", b"first")


def test_order_is_that_of_keeping_even_after_everything_was_freed(state: State) -> None:
    put(state, ("trip", "z", b""), ("breach", "a", b""))
    before = outbox.waiting(state.connection, 10)[-1].seq
    with state.transaction() as db:
        assert outbox.free(db, ["a", "z", "unknown"]) == 2
    put(state, ("trip", "m", b""))
    assert ids(state) == ["m"]
    assert outbox.waiting(state.connection, 10)[0].seq > before


def evict(state: State, messages: int, payload_bytes: int = 10**9) -> dict[str, int]:
    with state.transaction() as db:
        return outbox.evict(db, outbox.Bounds(messages, payload_bytes))


MIXED = [
    ("breach", "b1", b"1234"),
    ("trip", "t1", b"1"),
    ("ack", "a1", b"12"),
    ("trip", "t2", b"1"),
    ("breach", "b2", b"1234"),
    ("ack", "a2", b"12"),
]


@pytest.mark.parametrize(
    ("room", "left", "dropped"),
    [
        (6, ["b1", "t1", "a1", "t2", "b2", "a2"], {}),
        (5, ["b1", "a1", "t2", "b2", "a2"], {"trip": 1}),
        (4, ["b1", "a1", "b2", "a2"], {"trip": 2}),
        (3, ["b1", "b2", "a2"], {"trip": 2, "ack": 1}),
        (2, ["b1", "b2"], {"trip": 2, "ack": 2}),
        (1, ["b2"], {"trip": 2, "ack": 2, "breach": 1}),
    ],
)
def test_the_oldest_trips_go_first_then_acknowledgements_and_breaches_last(
    state: State, room: int, left: list[str], dropped: dict[str, int]
) -> None:
    put(state, *MIXED)
    assert evict(state, room) == dropped
    assert ids(state) == left


@pytest.mark.parametrize(("room", "left"), [(14, 6), (13, 5), (12, 4), (8, 2), (7, 1), (3, 0)])
def test_the_bound_in_bytes_counts_payloads(state: State, room: int, left: int) -> None:
    put(state, *MIXED)
    evict(state, 100, room)
    assert len(ids(state)) == left
    assert outbox.size(state.connection)[1] <= room


class OutboxMachine(RuleBasedStateMachine):
    """The outbox on disk against a list of (id, kind, payload)."""

    message_ids: Bundle[str] = Bundle("message_ids")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "state.db"
        self.open()
        self.model: list[tuple[str, str, bytes]] = []
        self.dropped: dict[str, int] = {}

    def open(self) -> None:
        self.state = State(self.path, "car-1", "0" * 64)

    @rule(
        target=message_ids,
        message_id=st.text("ab", min_size=1, max_size=3),
        kind=st.sampled_from(KINDS),
        payload=st.binary(max_size=20),
    )
    def put(self, message_id: str, kind: Kind, payload: bytes) -> Any:
        put(self.state, (kind, message_id, payload))
        if message_id not in [known for known, _, _ in self.model]:
            self.model.append((message_id, kind, payload))
        return multiple(message_id)

    @rule(freed=st.lists(message_ids, max_size=3))
    def receipt(self, freed: list[str]) -> None:
        with self.state.transaction() as db:
            count = outbox.free(db, freed)
        left = [entry for entry in self.model if entry[0] not in freed]
        assert count == len(self.model) - len(left)
        self.model = left

    @rule(messages=st.integers(1, 6), payload_bytes=st.integers(0, 60))
    def evict(self, messages: int, payload_bytes: int) -> None:
        with self.state.transaction() as db:
            for kind, number in outbox.evict(db, outbox.Bounds(messages, payload_bytes)).items():
                kept.count(db, f"dropped_{kind}", number)
        while len(self.model) > messages or sum(len(p) for _, _, p in self.model) > payload_bytes:
            oldest = min(self.model, key=lambda entry: KINDS.index(entry[1]))
            self.model.remove(oldest)
            name = f"dropped_{oldest[1]}"
            self.dropped[name] = self.dropped.get(name, 0) + 1

    @rule(message_id=message_ids)
    def a_transaction_that_fails_changes_nothing(self, message_id: str) -> None:
        def fail(db: sqlite3.Connection) -> None:
            outbox.free(db, [message_id])
            outbox.put(db, "breach", "never", b"")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), self.state.transaction() as db:
            fail(db)

    @rule()
    def restart(self) -> None:
        self.state.close()
        self.open()

    @invariant()
    def the_disk_holds_the_model(self) -> None:
        db = self.state.connection
        waiting = outbox.waiting(db, 1000)
        found = [(w.message_id, w.kind, outbox.payload(db, w.seq)) for w in waiting]
        assert found == self.model
        assert outbox.size(db) == (len(self.model), sum(len(p) for _, _, p in self.model))
        assert kept.counters(db) == self.dropped

    def teardown(self) -> None:
        self.state.close()
        self.folder.cleanup()


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestOutbox = OutboxMachine.TestCase
