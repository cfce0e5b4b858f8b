"""The agent between link and samples: neither keeps the other waiting, nor fills the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.messages import Status, decode
from edge_agent.agent import EVENTS_A_POLL
from edge_agent.mqtt.link import Accepted, Connected, Disconnected, Received
from edge_agent.mqtt.offers import STATUSES
from tests.support_edge import Rig, aged_bundle


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "state.db", aged_bundle(tmp_path / "bundle"))
    yield made
    made.state.close()


def test_a_flood_of_messages_leaves_room_for_samples(rig: Rig) -> None:
    rig.connect()
    rig.link.events.extend([Received("twin/v1/car-1/receipt", b"no receipt")] * 1000)
    rig.agent.poll()
    assert len(rig.link.events) == 1000 - EVENTS_A_POLL
    rig.drive()
    assert rig.agent.statistics.trips == 1


def test_a_line_that_takes_nothing_is_not_filled_with_statuses(rig: Rig) -> None:
    rig.connect()
    for _ in range(20):
        rig.clock.now += 301.0
        rig.agent.poll()
    assert len(rig.link.payloads("status")) == STATUSES
    rig.tell(Accepted(1))
    assert len(rig.link.payloads("status")) == STATUSES + 1  # the one that was due says it all
    assert decode(rig.link.payloads("status")[-1], Status).sent_at == rig.clock.unix()


def test_a_new_connection_is_told_the_status_at_once_whatever_the_last_one_owed(rig: Rig) -> None:
    rig.connect()
    for _ in range(20):
        rig.clock.now += 301.0
        rig.agent.poll()
    before = len(rig.link.payloads("status"))
    rig.tell(Disconnected("cable"), Connected())
    assert len(rig.link.payloads("status")) == before + 1
