"""A vehicle runs what is signed, its own, newer, inside the bounds and no worse (INVARIANT 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import pytest

from common import calibration
from common.bundle import Bundle
from common.messages import SignedRevision, decode
from common.model import VoltageModel
from common.revision import Cause, encode_revision
from common.signing import key_id, sign
from common.trace import TraceArrays
from edge_agent.parameters.decisions import (
    Identity,
    KeptTrace,
    Verdict,
    authenticate,
    is_breach,
    judge,
)
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.reports import acknowledgement
from tests.support_edge import (
    FOREIGN_KEY,
    KEY,
    TRUST,
    VEHICLE,
    aged_bundle,
    revision_for,
    signed,
)

TRUE_GAIN = 1.1


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def identity_of(bundle: Bundle) -> Identity:
    return Identity(VEHICLE, bundle.sha256, bundle.manifest, TRUST)


def kept_trace(bundle: Bundle, odometer: float = 0.0) -> KeptTrace:
    """A trip of a battery whose gain is TRUE_GAIN, without noise."""
    features = np.column_stack([np.linspace(0.0, 300.0, 50), np.full(50, 500.0)])
    voltage = VoltageModel(bundle).predict(features, [TRUE_GAIN, 0.0])
    return KeptTrace("0" * 32, odometer, TraceArrays(np.arange(50.0), features, voltage))


def verdict_on(
    payload: bytes, bundle: Bundle, *, judged: int = 0, kept: KeptTrace | None = None
) -> Verdict:
    authentic = authenticate(decode(payload, SignedRevision), identity_of(bundle))
    prior = calibration.prior(bundle.manifest)
    return judge(authentic, judged, prior, kept, VoltageModel(bundle), bundle.manifest)


def edited(payload: bytes, old: str, new: str) -> bytes:
    """The message with another revision under the old signature."""
    message = decode(payload, SignedRevision)
    assert old in message.revision
    changed = message.revision.replace(old, new)
    return msgspec.json.encode(msgspec.structs.replace(message, revision=changed))


def renamed(payload: bytes) -> bytes:
    message = decode(payload, SignedRevision)
    own = msgspec.structs.replace(message, key_id=key_id(KEY.public_key()))
    return msgspec.json.encode(own)


def raw_signed(content: bytes) -> bytes:
    return msgspec.json.encode(sign(content, KEY))


@dataclass(frozen=True)
class Case:
    """A message, and the reason why the vehicle refuses it; empty when it applies it."""

    message: Callable[[Bundle], bytes]
    reason: str
    detail: str = ""
    judged: int = 0
    kept: bool = True


def with_revision(**changes: object) -> Callable[[Bundle], bytes]:
    return lambda bundle: signed(revision_for(bundle, **changes))


NOT_POSITIVE = calibration.upper_triangle(np.diag([1.0, -1.0, 1.0, 0.0]))
CASES = {
    "good": Case(with_revision(), ""),
    "good, without a kept trace": Case(with_revision(theta=[0.8, 0.0]), "", kept=False),
    "good, much newer": Case(with_revision(number=9), "", judged=8),
    "at a bound": Case(with_revision(theta=[2.0, 0.5]), "", kept=False),
    "foreign key": Case(
        lambda b: signed(revision_for(b), FOREIGN_KEY), "untrusted_key", "not among the trusted"
    ),
    "foreign key under a trusted name": Case(
        lambda b: renamed(signed(revision_for(b), FOREIGN_KEY)), "bad_signature", "not made by key"
    ),
    "another theta under the signature": Case(
        lambda b: edited(signed(revision_for(b)), "1.1", "1.2"), "bad_signature"
    ),
    "another vehicle under the signature": Case(
        lambda b: edited(signed(revision_for(b, vehicle_id="car-2")), "car-2", VEHICLE),
        "bad_signature",
    ),
    "another vehicle": Case(with_revision(vehicle_id="car-2"), "wrong_vehicle", "car-2"),
    "another bundle": Case(with_revision(bundle="f" * 64), "wrong_bundle", "f" * 12),
    "the same number again": Case(with_revision(number=3), "older", "3", judged=3),
    "an older number": Case(with_revision(number=2), "older", "2", judged=3),
    "a number as far ahead as may be": Case(with_revision(number=100_008), "", judged=8),
    "a number too far ahead": Case(with_revision(number=100_009), "number_too_far", "8", judged=8),
    "the last number of all, at first": Case(with_revision(number=10**9), "number_too_far", "0"),
    "gain too low": Case(with_revision(theta=[0.49, 0.0]), "out_of_bounds", "0.49"),
    "gain too high": Case(with_revision(theta=[2.01, 0.0]), "out_of_bounds", "2.01"),
    "offset too low": Case(with_revision(theta=[1.1, -0.51]), "out_of_bounds", "-0.51"),
    "offset too high": Case(with_revision(theta=[1.1, 0.51]), "out_of_bounds", "0.51"),
    "a number that is none": Case(
        lambda b: raw_signed(encode_revision(revision_for(b)).replace(b"[1.1,", b"[NaN,")),
        "malformed",
    ),
    "a number beyond all": Case(
        lambda b: raw_signed(encode_revision(revision_for(b)).replace(b"[1.1,", b"[1e999,")),
        "malformed",
    ),
    "one parameter": Case(
        with_revision(theta=[1.1], rate=[0.0], covariance=[1.0, 0.0, 0.0]),
        "malformed",
        "1 parameters",
    ),
    "three parameters": Case(
        with_revision(theta=[1.1] * 3, rate=[0.0] * 3, covariance=[0.0] * 21), "malformed", "3"
    ),
    "a covariance that is none": Case(
        with_revision(covariance=NOT_POSITIVE), "malformed", "positive definite"
    ),
    "nonsense, signed": Case(lambda _: raw_signed(b"nonsense"), "malformed"),
    "a schema of the future": Case(with_revision(schema=2), "unknown_schema", "schema 2"),
    "worse on the trace": Case(with_revision(theta=[0.9, 0.0]), "worse_on_trace", "V after"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_revision_is_applied_or_refused_for_its_reason(bundle: Bundle, name: str) -> None:
    case = CASES[name]
    kept = kept_trace(bundle) if case.kept else None
    verdict = verdict_on(case.message(bundle), bundle, judged=case.judged, kept=kept)
    assert verdict.reason == case.reason
    assert verdict.applied is (case.reason == "")
    assert case.detail in verdict.detail


def test_the_errors_on_the_kept_trace_are_told(bundle: Bundle) -> None:
    verdict = verdict_on(signed(revision_for(bundle)), bundle, kept=kept_trace(bundle))
    assert verdict.error_before_v is not None
    assert verdict.error_after_v is not None
    assert verdict.error_before_v > 0.05
    assert verdict.error_after_v < 1e-6


def test_a_revision_that_leaves_the_error_where_it_was_is_no_worse(bundle: Bundle) -> None:
    same = signed(revision_for(bundle, theta=[1.0, 0.0]))
    assert verdict_on(same, bundle, kept=kept_trace(bundle)).applied


def test_the_comparison_is_made_at_the_odometer_of_the_trace(bundle: Bundle) -> None:
    aging = signed(revision_for(bundle, theta=[1.0, 0.0], rate=[1e-6, 0.0]))
    there = verdict_on(aging, bundle, kept=kept_trace(bundle, odometer=100_000.0))
    assert there.error_after_v == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("kind", ["fleet_prior", "replacement"])
@pytest.mark.parametrize(
    ("driven_at", "reason"), [(99.0, ""), (100.0, "worse_on_trace"), (101.0, "worse_on_trace")]
)
def test_a_trace_from_before_a_battery_says_nothing_about_it(
    bundle: Bundle, kind: Literal["fleet_prior", "replacement"], driven_at: float, reason: str
) -> None:
    cause = Cause(kind=kind, message_id="0" * 32)
    new = signed(revision_for(bundle, theta=[0.9, 0.0], odometer=100.0, cause=cause))
    verdict = verdict_on(new, bundle, kept=kept_trace(bundle, odometer=driven_at))
    assert verdict.reason == reason
    assert (verdict.error_before_v is None) is (reason == "")


@pytest.mark.parametrize("kind", ["breach", "recalibration"])
def test_after_a_breach_replayed_or_not_every_kept_trace_is_compared(
    bundle: Bundle, kind: Literal["breach", "recalibration"]
) -> None:
    cause = Cause(kind=kind, message_id="0" * 32, replays="" if kind == "breach" else "1" * 32)
    worse = signed(revision_for(bundle, theta=[0.9, 0.0], odometer=100.0, cause=cause))
    verdict = verdict_on(worse, bundle, kept=kept_trace(bundle, odometer=99.0))
    assert verdict.reason == "worse_on_trace"


@pytest.mark.parametrize(
    ("error_v", "breach"), [(0.0, False), (0.03, False), (0.0300001, True), (1.0, True)]
)
def test_a_breach_is_an_error_above_the_threshold(error_v: float, breach: bool) -> None:  # noqa: FBT001
    assert is_breach(error_v, 0.03) is breach


def test_the_same_verdict_on_the_same_revision_is_one_acknowledgement(
    bundle: Bundle, tmp_path: Path
) -> None:
    good = verdict_on(signed(revision_for(bundle)), bundle, kept=kept_trace(bundle))
    worse = verdict_on(
        signed(revision_for(bundle, theta=[0.9, 0.0])), bundle, kept=kept_trace(bundle)
    )
    who = identity_of(bundle)
    first, again = (
        acknowledgement(good, 1, who, Stamp(1, now, now, is_known=True)) for now in (1.0, 2.0)
    )
    refusal = acknowledgement(worse, 1, who, Stamp(1, 1.0, 1.0, is_known=True))
    assert first.message_id == again.message_id != refusal.message_id
    assert (first.verdict, first.reason, refusal.verdict) == ("applied", "", "refused")
    assert refusal.reason == "worse_on_trace"
    assert first.revision_hash == good.hash
