"""Breach or silent, apply or refuse: decisions as values with their reason.

Pure. Must never act: the runtime carries a decision out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from common import calibration
from common.believable import disbelief
from common.errors import ContractError, SignatureError, UnknownSchemaError
from common.manifest import Manifest
from common.messages import RefusalReason, RevisionNumber, SignedRevision
from common.model import VoltageModel
from common.revision import Revision, decode_revision, revision_hash, starts_a_battery
from common.trace import TraceArrays
from common.trust import TrustStore

# No vehicle sees so many revisions in its life; a stolen key must not use the numbers up at once.
FARTHEST_AHEAD = 100_000
# A revision that leaves the error where it was is no worse; float noise must not refuse it.
ERROR_TOLERANCE_V = 1e-9


Check = Callable[[str, str, bytes], None]


@dataclass(frozen=True)
class Identity:
    """Who the vehicle is, and what it trusts."""

    vehicle_id: str
    bundle: str
    manifest: Manifest
    trusted: TrustStore


@dataclass(frozen=True)
class KeptTrace:
    """A breach trace kept on the vehicle, with the odometer of its trip's start."""

    message_id: str
    odometer: float
    trace: TraceArrays


@dataclass(frozen=True)
class Verdict:
    """Apply (`reason` empty) or refuse a revision; the errors on the kept trace where it was asked.

    `revision` is None when the message could not even be read or believed; signed by a trusted key
    but unreadable, it still has its `hash` and, where that much is readable, its `number`.
    """

    reason: RefusalReason
    detail: str = ""
    revision: Revision | None = None
    hash: str = ""
    number: int | None = None
    error_before_v: float | None = None
    error_after_v: float | None = None

    @property
    def applied(self) -> bool:
        """Whether the vehicle runs this revision from its next trip on."""
        return self.reason == ""


def is_breach(error_v: float, threshold_v: float) -> bool:
    """A trip is a breach when its mean absolute error exceeds the threshold."""
    return error_v > threshold_v


def authenticate(message: SignedRevision, identity: Identity) -> Verdict:
    """Believe what is signed by a trusted key, for this vehicle and bundle, inside the bounds."""
    return _believed(message, identity, identity.trusted.check)


def authenticate_kept(message: SignedRevision, identity: Identity) -> Verdict:
    """Believe a record of the vehicle's own: what its key signed when it might is still meant."""
    return _believed(message, identity, identity.trusted.check_kept)


def _believed(message: SignedRevision, identity: Identity, check: Check) -> Verdict:
    content = message.revision.encode()
    try:
        check(message.key_id, message.signature, content)
    except SignatureError as error:
        return Verdict(error.reason, str(error))
    try:
        revision = decode_revision(content)
    except ContractError as error:
        reason: RefusalReason = (
            "unknown_schema" if isinstance(error, UnknownSchemaError) else "malformed"
        )
        return Verdict(reason, str(error), None, revision_hash(content), _number_in(content))
    reason, detail = _fits(revision, identity)
    return Verdict(reason, detail, revision, revision_hash(content), revision.number)


class _Numbered(msgspec.Struct):
    number: RevisionNumber


def _number_in(content: bytes) -> int | None:
    """The number of a revision that cannot be read as a whole, for the answer to name it."""
    try:
        return msgspec.json.decode(content, type=_Numbered).number
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def judge(
    authentic: Verdict,
    judged_number: int,
    current: calibration.Estimate,
    kept: KeptTrace | None,
    model: VoltageModel,
    manifest: Manifest,
) -> Verdict:
    """Apply what is newer than any judged before and no worse on the kept trace than `current`.

    Without a kept trace (a replaced disk) there is nothing to compare on, and the rest decides. So
    it is where the revision starts a battery that came after the kept trace, and where an operator
    wants old parameters again.
    """
    revision = authentic.revision
    if not authentic.applied or revision is None:
        return authentic
    reason, detail = out_of_turn(revision.number, judged_number)
    if reason:
        return replace(authentic, reason=reason, detail=detail)
    if kept is None or revision.cause.kind == "roll_back":
        return authentic
    if starts_a_battery(revision.cause) and kept.odometer < revision.odometer:
        return authentic
    before = _error_on(kept, current, model, manifest)
    after = _error_on(kept, calibration.estimate_of(revision), model, manifest)
    worse = after > before + ERROR_TOLERANCE_V
    detail = f"error on the kept trace {before:.4f} V before, {after:.4f} V after" if worse else ""
    reason = "worse_on_trace" if worse else ""
    return replace(
        authentic, reason=reason, detail=detail, error_before_v=before, error_after_v=after
    )


def out_of_turn(number: int, judged_number: int) -> tuple[RefusalReason, str]:
    """Why a number cannot come after the one judged last; an empty reason where it can."""
    if number <= judged_number:
        return "older", f"revision {number} comes after {judged_number} was judged"
    if number > judged_number + FARTHEST_AHEAD:
        return "number_too_far", f"{number} is too far ahead of {judged_number}"
    return "", ""


def _fits(revision: Revision, identity: Identity) -> tuple[RefusalReason, str]:
    if revision.vehicle_id != identity.vehicle_id:
        return "wrong_vehicle", f"it is addressed to {revision.vehicle_id}"
    if revision.bundle != identity.bundle:
        return "wrong_bundle", f"it is for bundle {revision.bundle[:12]}"
    if len(revision.theta) != len(identity.manifest.parameters):
        return "malformed", f"it has {len(revision.theta)} parameters"
    estimate = calibration.estimate_of(revision)
    if not calibration.is_positive_definite(estimate, identity.manifest):
        return "malformed", "its covariance is not positive definite"
    if not calibration.is_inside_bounds(estimate, identity.manifest):
        return "out_of_bounds", f"theta {revision.theta} leaves the manifest's bounds"
    problem = disbelief(estimate, identity.manifest)
    return ("out_of_bounds", problem) if problem else ("", "")


def _error_on(
    kept: KeptTrace, estimate: calibration.Estimate, model: VoltageModel, manifest: Manifest
) -> float:
    there = calibration.extrapolate(estimate, manifest, kept.odometer)
    return calibration.aligned_error_v(there, kept.trace, model, manifest)
