"""What nobody has answered goes out again a page at a time, and everything of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.location import PostgresUrl
from cloud.push import catching_up
from tests.cloud_doubles import Insides, write_bundle

NAMES = ["a", "b", "c", "d", "e"]


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(
    tmp_path: Path,
    bundle_path: Path,
    database: PostgresUrl | None,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Insides]:
    """Five vehicles with a revision that they have not answered; pages of two."""
    monkeypatch.setattr(catching_up, "PAGE", 2)
    made = Insides(tmp_path, bundle_path, database)
    made.take(*(made.car(name).breach(9) for name in NAMES))
    made.work()
    yield made
    made.store.close()


def sent(inside: Insides) -> list[str]:
    return [one.topic.split("/")[2] for one in inside.publisher.of_kind("parameters")]


def confirm(inside: Insides) -> None:
    waiting, inside.publisher.waiting = inside.publisher.waiting, []
    for told in waiting:
        told()


def reconnected(inside: Insides) -> None:
    inside.publisher.sent.clear()
    inside.publisher.confirms = False
    inside.worker.reconnected()
    inside.work()


def test_the_next_page_goes_when_the_broker_has_the_last_one(inside: Insides) -> None:
    reconnected(inside)
    inside.worker.wake()
    inside.work()
    assert sent(inside) == NAMES[:2]
    confirm(inside)
    inside.work()
    assert sent(inside) == NAMES[:4]
    confirm(inside)
    inside.work()
    assert sent(inside) == NAMES
    confirm(inside)
    inside.work()
    assert sent(inside) == NAMES


def test_a_connection_that_broke_over_a_page_does_not_hold_up_the_next(inside: Insides) -> None:
    reconnected(inside)
    inside.now += catching_up.PATIENCE_S
    inside.worker.wake()
    inside.work()
    assert sent(inside) == NAMES[:4]


def test_at_the_next_connection_it_begins_anew(inside: Insides) -> None:
    reconnected(inside)
    reconnected(inside)
    assert sent(inside) == NAMES[:2]


def test_declines_that_were_not_heard_come_after_the_revisions(inside: Insides) -> None:
    inside.publisher.connected = False
    late = [inside.car(name).breach(5) for name in NAMES[:3]]
    inside.take(*late)
    inside.work()
    inside.publisher.connected = True
    inside.publisher.sent.clear()
    inside.worker.reconnected()
    for _ in NAMES:
        inside.work()
    assert sent(inside) == NAMES
    assert list(inside.publisher.declined) == [breach.message_id for breach in late]
