"""Signed revisions: forged, altered, and absurd ones that the trusted key did sign.

Promised: nothing but the contract's errors is raised; what is accepted carries a signature of a
trusted key over its very bytes, is for this vehicle and bundle, newer, finite and inside the
bounds; and the vehicle drives on with it, and tells of trips that the cloud believes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import msgspec
import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bench.edge.fuzz.mutation import json_of
from bench.edge.fuzz.target import Plain, Target, UnsignedAcceptanceError, promise
from bench.edge.fuzz.vehicle import (
    FOREIGN_KEY,
    KEY,
    START,
    VEHICLE,
    Vehicle,
    keep_breach,
    revisions,
    samples,
    the_vehicle,
)
from common.errors import ContractError
from common.messages import MAX_ODOMETER, Acknowledgement, Breach, TripSummary, decode, encode
from common.revision import encode_revision
from common.signing import key_id, sign
from common.trace import from_wire
from edge_agent.parameters import revision_intake
from edge_agent.parameters.decisions import Verdict
from edge_agent.storage import kept
from edge_agent.storage.state import State
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.reports import acknowledgement, reports_of
from edge_agent.trips.trip_monitor import TripMonitor

ORDER: Final = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group
NOW: Final = Stamp(1, 1.0, START, is_known=True)
FAR: Final = (0.0, 1e4, 1e6)  # odometer since the revision


def target() -> Target:
    """Seeds: revisions that the vehicle takes."""
    seeds = [encode(sign(encode_revision(r), KEY)) for r in revisions(the_vehicle().who)]
    return Target("revisions", tuple(seeds), _mutate, check)


def check(data: bytes) -> None:
    """One vehicle has kept the breach trace, the other has a new disk."""
    vehicle = the_vehicle()
    state = vehicle.with_trace if len(data) % 2 else vehicle.without_trace
    try:
        verdict = revision_intake.consider(data, vehicle.twin, state, vehicle.who)
    except ContractError:
        return
    if verdict is None or verdict.number is None:
        return
    answer = acknowledgement(verdict, verdict.number, vehicle.who, NOW)
    promise(decode(encode(answer), Acknowledgement) == answer, "an ack that the cloud refuses")
    if verdict.applied:
        _check_signed(data, verdict, vehicle)
        _check_content(verdict, vehicle)
        _check_driving(verdict, vehicle)
        _check_restart(data, verdict, vehicle, state)


def _check_signed(data: bytes, verdict: Verdict, vehicle: Vehicle) -> None:
    """Read and verified a second time, with another reader and from the key's raw bytes."""
    envelope = json.loads(data)
    content = envelope["revision"].encode()
    keys = {name: key.public_bytes_raw() for name, key in vehicle.who.trusted.keys.items()}
    raw = keys.get(envelope["key_id"])
    if raw is None:
        raise UnsignedAcceptanceError(f"accepted from key {envelope['key_id']}")
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(
            bytes.fromhex(envelope["signature"]), content
        )
    except (InvalidSignature, ValueError) as error:
        raise UnsignedAcceptanceError("accepted with a signature that does not verify") from error
    same = hashlib.sha256(content).hexdigest() == verdict.hash
    promise(same, "accepted is another content than the signed one")
    promise(json.loads(content)["theta"] == verdict.revision.theta, "theta is read otherwise")  # type: ignore[union-attr]


def _check_content(verdict: Verdict, vehicle: Vehicle) -> None:
    revision, who = verdict.revision, vehicle.who
    assert revision is not None  # noqa: S101 - an applied verdict has one
    promise(revision.vehicle_id == VEHICLE, "another vehicle's")
    promise(revision.bundle == who.bundle, "another bundle's")
    promise(revision.number > vehicle.twin.revision, "not newer")
    for parameter, value in zip(who.manifest.parameters, revision.theta, strict=True):
        promise(parameter.lower <= value <= parameter.upper, f"{parameter.name} is {value}")
    numbers = [*revision.rate, *revision.covariance, *revision.rate_growth, revision.odometer]
    promise(all(map(math.isfinite, numbers)), "a number that is none")


def _check_driving(verdict: Verdict, vehicle: Vehicle) -> None:
    """A trip now and long after: finite predictions, a summary and a breach for the cloud."""
    who = vehicle.who
    twin = revision_intake.applied(verdict, who, vehicle.twin)
    for far in FAR:
        odometer = min(twin.estimate.odometer + far, MAX_ODOMETER - 1)
        trip = list(samples(odometer))
        monitor = TripMonitor("trip-2", trip[0], twin, 8)
        for sample in trip:
            promise(math.isfinite(monitor.add(sample).band95_v), "a prediction that is no number")
        summary, breach = reports_of(monitor.finish(), who)
        promise(decode(encode(summary), TripSummary) == summary, "a summary the cloud refuses")
        if breach is not None:
            told = decode(encode(breach), Breach)
            promise(np.isfinite(from_wire(told.trace, who.manifest).voltage_v).all(), "a breach")


def _check_restart(data: bytes, verdict: Verdict, vehicle: Vehicle, state: State) -> None:
    """What was recorded comes back as it was; then the state is as before."""
    who = vehicle.who
    revision_intake.record(verdict, data, state, who, NOW)
    twin = revision_intake.restore_twin(state, who, vehicle.model)
    again = revision_intake.consider(data, twin, state, who)
    with state.transaction() as db:
        kept.forget_all_parameters(db)
        db.execute("DELETE FROM outbox")
    if state is vehicle.with_trace:
        keep_breach(state, who, vehicle.model)
    assert verdict.revision is not None  # noqa: S101 - an applied verdict has one
    promise(twin.revision == verdict.revision.number, "a restart has another revision")
    promise(twin.estimate.theta.tolist() == verdict.revision.theta, "a restart has another theta")
    promise(again is None, "the same revision is judged twice")


def _mutate(data: bytes, random: Random, plain: Plain) -> bytes:
    """Envelope or content, signed again or not, by whom."""
    try:
        envelope: dict[str, Any] = json.loads(data)
        content = envelope["revision"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return plain(data)
    way = random.randrange(10)
    if way < len(UNSIGNED):
        return UNSIGNED[way](data, envelope, content, random, plain)
    return _signed(plain(content) if way == len(UNSIGNED) else json_of(content, random, plain))


def _signed(content: bytes) -> bytes:
    """What a trusted signer gone mad would send."""
    return encode(sign(_text(content).encode(), KEY))


def _text(content: bytes) -> str:
    return content.decode(errors="replace")


def _written(envelope: dict[str, Any]) -> bytes:
    return json.dumps(envelope).encode()


def _forged(envelope: dict[str, Any], content: bytes, random: Random) -> dict[str, Any]:
    """Signatures as an attacker without the key may try them."""
    other = msgspec.to_builtins(sign(content, FOREIGN_KEY))
    signature = str(envelope.get("signature", ""))
    return random.choice(
        (
            other,
            {**other, "key_id": key_id(KEY.public_key())},
            {**envelope, "signature": "00" * 64},
            {**envelope, "signature": "01" + "00" * 63},
            {**envelope, "signature": _malleable(signature)},
            {**envelope, "signature": signature.upper()},
            {**envelope, "key_id": other["key_id"]},
            {**envelope, "revision": _text(content) + " "},
            {**envelope, "revision": _text(content).replace('"car-1"', '"car-\\u0031"')},
        )
    )


def _malleable(signature: str) -> str:
    """S + L instead of S: the same equation, which RFC 8032 tells to refuse."""
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        return signature
    scalar = int.from_bytes(raw[32:], "little") + ORDER
    return (raw[:32] + (scalar % 2**256).to_bytes(32, "little")).hex()


UNSIGNED: Final[Sequence[Callable[..., bytes]]] = (
    lambda data, _envelope, _content, _random, plain: plain(data),
    lambda data, _envelope, _content, random, plain: json_of(data, random, plain),
    lambda _data, envelope, content, random, plain: _written(
        {**envelope, "revision": _text(json_of(content, random, plain))}
    ),
    lambda _data, envelope, content, random, _plain: _written(_forged(envelope, content, random)),
)
