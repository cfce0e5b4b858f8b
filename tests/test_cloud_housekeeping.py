"""Housekeeping: one of several processes does it, another follows when it ends; trouble is seen."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.alerts.carrier import Carrier
from cloud.alerts.housekeeping import LEASE_S, Housekeeping
from cloud.alerts.sweep import AlarmSweep
from cloud.config import Config, load_config
from cloud.location import PostgresUrl
from cloud.store.database import Store
from tests.cloud_doubles import NOW


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path, database: PostgresUrl | None) -> Iterator[Store]:
    store = Store(database or tmp_path / "twin.db")
    yield store
    store.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "twin-cloud.toml"
    path.write_text('[store]\npath="t.db"\n[bundles]\npaths=["b"]\n[keys]\nprivate="k.pem"\n')
    return load_config(path)


def sweeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a sweep was due and somebody began it."""
    done: list[float] = []
    monkeypatch.setattr(AlarmSweep, "turn", lambda _self, now: done.append(now))
    return done


def test_one_of_several_does_it_until_it_ends(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, clock = sweeps(monkeypatch), Clock()
    first, second = (Housekeeping(store, config, clock, random.Random(n)) for n in (1, 2))
    for _ in range(5):
        first.turn()
        second.turn()
        clock.now += LEASE_S / 2
    assert len(done) == 5
    clock.now += 2 * LEASE_S  # the first was killed
    for one in (second, first):
        one.turn()
    assert len(done) == 6
    stopped = threading.Event()
    stopped.set()
    second.run(stopped)  # it ends in good order, and the first need not wait
    first.turn()
    assert (len(done), first.trouble) == (7, None)


def test_what_fails_is_told_and_holds_up_nothing_else(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = sweeps(monkeypatch)
    one = Housekeeping(store, config, Clock(), random.Random(1))

    def fail(*_: object) -> bool:
        raise ValueError("broken")

    with monkeypatch.context() as broken:
        broken.setattr(Carrier, "turn", fail)
        one.turn()
        assert "broken" in (one.trouble or "")
    one.turn()
    assert (one.trouble, len(done)) == (None, 2)
