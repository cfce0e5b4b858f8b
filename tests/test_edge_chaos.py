"""A line and a broker that do whatever lines and brokers do, between real agents and Mosquitto.

INVARIANT 1: nothing lost, nothing counted twice; breaches arrive in the order of the odometer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.edge.chaos import BROKERS, Plan, Protocol, run
from bench.edge.proxy import Fault
from bench.mqtt_packets import PUBLISH, Splitter
from demo.broker import PrivateBroker
from tests.mqtt_stub import publish

Start = Callable[..., PrivateBroker]


@pytest.mark.parametrize(("setting", "protocol"), BROKERS)
def test_whatever_happens_on_the_way_every_message_is_one_fact_and_breaches_are_in_order(
    mosquitto_broker_factory: Start, tmp_path: Path, setting: str, protocol: Protocol
) -> None:
    broker = mosquitto_broker_factory(config_lines=(setting,))
    plan = Plan(3, trips=12, faults=30, gap_s=0.1, seed=3, protocol=protocol, broker_every=10)
    report = run(plan, tmp_path, broker)
    assert report.faults.total() == 30
    assert {fault.value for fault in Fault} <= report.faults.keys()
    assert report.facts == 3 * 12 * 2
    assert (report.lost, report.unexpected, report.out_of_order) == (0, 0, 0)
    assert (report.not_connected, report.failures) == (0, ())


def test_packets_are_found_whatever_the_pieces_they_come_in() -> None:
    first, second = publish(b"a/b", b"x" * 300), b"\x40\x02\x00\x07"
    stream = first + second + first
    for size in (1, 2, 3, 150, len(stream)):
        splitter = Splitter()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        packets = [packet for piece in pieces for packet in splitter.feed(piece)]
        assert [packet.raw for packet in packets] == [first, second, first]
        assert (packets[0].kind, packets[0].topic, packets[1].packet_id) == (PUBLISH, "a/b", 7)
