"""From the database's rows to the calibration's arrays and back: a case, then a new revision.

Pure. Must never look at a clock or sign with anything but the key it is given.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.calibrator import Case, Decline, MakeRevision
from cloud.store.revisions import History
from cloud.store.tables import Breach, RevisionRow
from common import calibration
from common.errors import ContractError
from common.manifest import Manifest
from common.messages import SignedRevision, Trace
from common.revision import (
    GENESIS,
    Cause,
    Revision,
    decode_revision,
    encode_revision,
    revision_hash,
)
from common.signing import sign
from common.trace import from_wire


@dataclass(frozen=True)
class Author:
    """What every revision of this service carries: the signing key and the version of the code."""

    key: Ed25519PrivateKey
    code_version: str


def case_of(breach: Breach, history: History, manifest: Manifest) -> Case | Decline:
    """What the calibration needs, or why this breach must not be calibrated."""
    reason = _lateness(breach, history.standing)
    if reason is not None:
        return Decline(reason, blames_estimate=False)
    reason = _obstacle(breach, history.running)
    if reason is not None:
        return Decline(reason)
    try:
        trace = from_wire(msgspec.json.decode(breach.trace, type=Trace), manifest)
        base = _estimate(history.base, manifest)
        is_lost = breach.revision > 0 and history.running is None
        running = base if is_lost else _estimate(history.running, manifest)
    except (msgspec.MsgspecError, ContractError) as error:
        return Decline(f"what is stored of it cannot be read: {error}"[:256])
    return Case(
        trace=trace,
        odometer=breach.odometer,
        base=base,
        running=running,
        failures=history.failures,
    )


def make_row(
    breach: Breach, history: History, decision: MakeRevision, author: Author, now: float
) -> RevisionRow:
    """The next revision of the breach's vehicle, hashed and signed."""
    revision = _revision(breach, history, decision, author, now)
    content = encode_revision(revision)
    signed = sign(content, author.key)
    return RevisionRow(
        vehicle_id=breach.vehicle_id,
        number=revision.number,
        bundle=revision.bundle,
        odometer=revision.odometer,
        cause_message_id=breach.message_id,
        content=content,
        hash=revision_hash(content),
        key_id=signed.key_id,
        signature=signed.signature,
        created_at=now,
    )


def signed_message(row: RevisionRow) -> SignedRevision:
    """The message that carries a stored revision."""
    return SignedRevision(key_id=row.key_id, signature=row.signature, revision=row.content.decode())


def _lateness(breach: Breach, standing: RevisionRow | None) -> str | None:
    if standing is None or breach.odometer > standing.odometer:
        return None
    return (
        f"arrived after a newer revision: its odometer is {breach.odometer:.6g}, "
        f"that of revision {standing.number} is {standing.odometer:.6g}"
    )


def _obstacle(breach: Breach, running: RevisionRow | None) -> str | None:
    if running is not None and running.bundle != breach.bundle:
        return f"the vehicle ran revision {running.number}, which is for another bundle"
    return None


def _estimate(row: RevisionRow | None, manifest: Manifest) -> calibration.Estimate:
    if row is None:
        return calibration.prior(manifest)
    return calibration.estimate_of(decode_revision(row.content))


def _revision(
    breach: Breach, history: History, decision: MakeRevision, author: Author, now: float
) -> Revision:
    found = decision.calibrated
    estimate, learned = found.estimate, found.estimate.discrepancy
    newest = history.newest
    before = newest.number if newest else 0
    # The vehicle ran what this database has lost: only a higher number will be newer to it.
    resumes_after = breach.revision if breach.revision > before else 0
    return Revision(
        vehicle_id=breach.vehicle_id,
        number=max(before, resumes_after) + 1,
        resumes_after=resumes_after,
        parent_hash=newest.hash if newest else GENESIS,
        base=history.base.number if history.base else 0,
        bundle=breach.bundle,
        odometer=found.estimate.odometer,
        theta=found.estimate.theta.tolist(),
        rate=found.estimate.rate.tolist(),
        covariance=calibration.upper_triangle(found.estimate.covariance),
        rate_growth=[] if estimate.growth is None else estimate.growth.tolist(),
        discrepancy_std_v=None if learned is None else learned.std_v,
        discrepancy_trips=0.0 if learned is None else learned.trips,
        cause=Cause(
            kind="breach",
            finding="changed_battery" if found.finding == "changed_battery" else "drift",
            message_id=breach.message_id,
            trip_id=breach.trip_id,
            points=found.points,
            nis=found.nis,
            error_before_v=decision.error_before_v,
            error_after_v=found.error_after_v,
        ),
        created_at=now,
        code_version=author.code_version,
    )
