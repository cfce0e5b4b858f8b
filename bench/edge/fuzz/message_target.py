"""Payloads of every kind of message in both directions, and through the agent and the cloud.

Promised: nothing but the contract's errors is raised; what is believed is finite, is the same when
written and read again, and no payload without a signature changes what the vehicle runs.
"""

from __future__ import annotations

import math
from collections import deque
from functools import cache
from random import Random
from typing import Any, Final, cast

import msgspec

from bench.edge.fuzz.mutation import json_of
from bench.edge.fuzz.target import Plain, Target, UnsignedAcceptanceError, promise
from bench.edge.fuzz.vehicle import (
    CAUSE,
    FOREIGN_KEY,
    START,
    VEHICLE,
    breach_of,
    keep_breach,
    new_state,
    revisions,
    the_vehicle,
)
from cloud.bundles import Catalogue
from cloud.intake.interpretation import Delivery, interpret, refused_offer
from common.errors import ContractError
from common.messages import (
    Acknowledgement,
    Breach,
    Declined,
    KeyChain,
    Receipt,
    SignedRevision,
    SignedStatement,
    Status,
    TripSummary,
    decode,
    encode,
)
from common.revision import decode_revision, encode_revision
from common.signing import sign
from common.topics import DOWNWARD, UPWARD, topic
from common.trace import from_wire
from common.trust import KeyStatement, sign_statement
from edge_agent.agent import Agent
from edge_agent.config import Limits
from edge_agent.mqtt.link import Connected, Event, MqttLink, Received
from edge_agent.timekeeping.clock import Clock

KINDS: Final = (
    *(TripSummary, Breach, Status, SignedRevision, Acknowledgement, Receipt),
    KeyChain,
)
TO_CLOUD = len(KINDS)
TO_VEHICLE = TO_CLOUD + len(UPWARD)
WAYS = TO_VEHICLE + len(DOWNWARD)


def target() -> Target:
    """The first byte says which way a payload goes; the seeds are one message of each kind."""
    vehicle = the_vehicle()
    who = vehicle.who
    summary = TripSummary(
        message_id=CAUSE,
        vehicle_id=VEHICLE,
        trip_id="trip-1",
        bundle=who.bundle,
        revision=0,
        started_at=START,
        duration_s=600.0,
        odometer_start=1000.0,
        odometer_end=1300.0,
        samples=60,
        refused_samples=0,
        error_v=0.01,
        band95_v=0.05,
        coverage95=0.95,
        feature_means=[150.0, 500.0],
        breach=False,
    )
    status = Status(
        vehicle_id=VEHICLE,
        online=True,
        agent_version="0.1.0",
        bundle=who.bundle,
        revision=0,
        awaiting=[CAUSE],
        sent_at=START,
    )
    answer = Acknowledgement(
        message_id=CAUSE,
        vehicle_id=VEHICLE,
        revision=1,
        revision_hash=who.bundle,
        verdict="refused",
        reason="worse_on_trace",
        error_before_v=0.1,
        decided_at=START,
    )
    receipt = Receipt(vehicle_id=VEHICLE, message_ids=[CAUSE], declined=[Declined(CAUSE, "no")])
    foreign = sign(encode_revision(revisions(who)[0]), FOREIGN_KEY)
    keys = KeyChain(statements=[_foreign_statement()])
    by_kind = (summary, breach_of(who, vehicle.model), status, foreign, answer, receipt, keys)
    upward = (summary, by_kind[1], status, answer)
    seeds = [encode(message) for message in (*by_kind, *upward, foreign, receipt, keys)]
    return Target(
        "messages",
        tuple(bytes([way]) + seed for way, seed in enumerate(seeds)),
        _mutate,
        check,
    )


def _foreign_statement() -> SignedStatement:
    """Somebody else's key names itself."""
    raw = FOREIGN_KEY.public_key().public_bytes_raw().hex()
    statement = KeyStatement(kind="key_statement", number=1, keys=[raw])
    return sign_statement(statement, FOREIGN_KEY)


def check(data: bytes) -> None:
    """Down the way that the first byte says."""
    way, payload = (data[0] if data else 0) % WAYS, data[1:]
    try:
        if way < TO_CLOUD:
            _decoded(payload, KINDS[way])
        elif way < TO_VEHICLE:
            _to_cloud(topic(VEHICLE, UPWARD[way - TO_CLOUD]), payload)
        else:
            _to_vehicle(topic(VEHICLE, DOWNWARD[way - TO_VEHICLE]), payload)
    except ContractError:
        return


def _decoded(payload: bytes, kind: type[Any]) -> None:
    message: Any = decode(payload, kind)
    _check_finite(msgspec.to_builtins(message))
    promise(decode(encode(message), kind) == message, "it reads otherwise when written again")
    if isinstance(message, Breach):
        trace = from_wire(message.trace, the_vehicle().who.manifest)
        promise(math.isfinite(float(trace.features.sum())), "a trace with a number that is none")
    if isinstance(message, SignedRevision):
        revision = decode_revision(message.revision.encode())
        _check_finite(msgspec.to_builtins(revision))


def _to_cloud(name: str, payload: bytes) -> None:
    refused_offer(Delivery(name, payload))
    message = interpret(name, payload, _catalogue())
    promise(message.vehicle_id == VEHICLE, "it speaks for another vehicle than its topic")


def _to_vehicle(name: str, payload: bytes) -> None:
    """The agent never raises; nothing here is signed by the key that it trusts."""
    agent, link = _agent()
    link.events.append(Received(name, payload))
    agent.poll()
    if agent.twin.revision != 0 or agent.statistics.applied:
        raise UnsignedAcceptanceError(f"{name} changed the twin to {agent.twin.revision}")


def _check_finite(value: Any) -> None:
    if isinstance(value, float):
        promise(math.isfinite(value), f"a number that is {value} was believed")
    elif isinstance(value, dict):
        for inner in value.values():
            _check_finite(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_finite(inner)


@cache
def _catalogue() -> Catalogue:
    return Catalogue([the_vehicle().bundle])


class _Link:
    """Stands for MqttLink; what the agent publishes goes nowhere."""

    bytes_sent = bytes_received = 0

    def __init__(self) -> None:
        self.events: deque[Event] = deque([Connected()])

    def publish(self, _kind: str, _payload: bytes, *, retain: bool = False) -> int:
        return int(retain)

    def next_event(self, _timeout_s: float) -> Event | None:
        return self.events.popleft() if self.events else None


@cache
def _agent() -> tuple[Agent, _Link]:
    """One for all inputs: nothing that comes here may change what it runs."""
    vehicle, link = the_vehicle(), _Link()
    bundle = vehicle.bundle
    clock = Clock(lambda: START, lambda: 0.0)
    state = new_state("agent.db")
    keep_breach(state, vehicle.who, vehicle.model)
    agent = Agent(
        VEHICLE, bundle, vehicle.who.trusted, state, cast("MqttLink", link), Limits(), clock
    )
    agent.poll()
    return agent, link


def _mutate(data: bytes, random: Random, plain: Plain) -> bytes:
    """The way stays as a rule, and so does JSON."""
    if not data or random.randrange(8) == 0:
        return plain(data)
    way = bytes([random.randrange(WAYS)]) if random.randrange(16) == 0 else data[:1]
    return way + json_of(data[1:], random, plain)
