"""From the database's rows to the calibration's arrays and back: a case, then a new revision.

Pure. Must never look at a clock or sign with anything but the key it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from cloud.store.revisions import History
from cloud.store.tables import Breach, RevisionRow
from common import calibration, fleet_prior
from common.calibration import Estimate
from common.calibrator import Case, Decline, MakeRevision
from common.errors import ContractError
from common.fleet_prior import FleetPrior
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
from common.signing import Signer, key_id, sign
from common.trace import from_wire


@dataclass(frozen=True)
class Author:
    """What every revision of this service carries: the signing key and the version of the code."""

    key: Signer
    code_version: str


def case_of(
    breach: Breach, history: History, manifest: Manifest, prior: FleetPrior | None = None
) -> Case | Decline:
    """What the calibration needs, or why this breach must not be calibrated.

    A vehicle without a base starts from the fleet's `prior` where there is one.
    """
    reason = _lateness(breach, history.standing)
    if reason is not None:
        return Decline(reason, blames_estimate=False)
    reason = _obstacle(breach, history.running)
    if reason is not None:
        return Decline(reason)
    try:
        trace = from_wire(msgspec.json.decode(breach.trace, type=Trace), manifest)
        if history.base is None:
            base, _ = started(prior, manifest, breach.odometer, history.battery_from)
        else:
            base = _estimate(history.base, manifest)
        running = base if _runs_base(breach, history) else _estimate(history.running, manifest)
    except (msgspec.MsgspecError, ContractError) as error:
        return Decline(f"what is stored of it cannot be read: {error}"[:256])
    return Case(
        trace=trace,
        odometer=breach.odometer,
        base=base,
        running=running,
        failures=history.failures,
    )


def _runs_base(breach: Breach, history: History) -> bool:
    """Also where what it ran is lost: then the base is the best guess.

    And where it was a provisional: that the vehicle helped itself well is no reason to refuse it a
    revision, which is judged against the chain alone, here as on the vehicle.
    """
    if breach.provisional:
        return True
    if history.running is None:
        return breach.revision > 0
    return history.running == history.base


def started(
    prior: FleetPrior | None, manifest: Manifest, odometer: float, battery_from: float
) -> tuple[Estimate, int]:
    """The estimate of a battery of which nothing is known, and the version of the prior it is from.

    The fleet's where it reaches down to the battery's age, else the manifest's (version 0).
    """
    age = max(odometer - battery_from, 0.0)
    version = _version_for(prior, age)
    if prior is None or version == 0:
        return calibration.prior(manifest, battery_from), 0
    return replace(fleet_prior.start(prior, manifest, age), odometer=odometer), version


def _version_for(prior: FleetPrior | None, age: float) -> int:
    return prior.version if prior is not None and fleet_prior.reaches(prior, age) else 0


def make_row(
    breach: Breach,
    history: History,
    decision: MakeRevision,
    author: Author,
    now: float,
    prior: FleetPrior | None = None,
) -> RevisionRow:
    """The next revision of the breach's vehicle, hashed and signed."""
    return signed_row(_revision(breach, history, decision, author, now, prior), author)


def signed_row(revision: Revision, author: Author) -> RevisionRow:
    """A revision as it is stored: hashed and signed."""
    content = encode_revision(revision)
    signed = sign(content, author.key)
    return RevisionRow(
        vehicle_id=revision.vehicle_id,
        number=revision.number,
        bundle=revision.bundle,
        odometer=revision.odometer,
        cause_message_id=revision.cause.message_id,
        content=content,
        hash=revision_hash(content),
        key_id=signed.key_id,
        signature=signed.signature,
        created_at=revision.created_at,
        kind=revision.cause.kind,
        parent_hash=revision.parent_hash,
    )


def signed_message(row: RevisionRow) -> SignedRevision:
    """The message that carries a stored revision, as it was signed when it was made."""
    return SignedRevision(key_id=row.key_id, signature=row.signature, revision=row.content.decode())


def signed_now(row: RevisionRow, author: Author) -> SignedRevision:
    """The same, signed again where the author's key is another by now; the content is the same."""
    if row.key_id == key_id(author.key.public_key()):
        return signed_message(row)
    return sign(row.content, author.key)


def _lateness(breach: Breach, standing: RevisionRow | None) -> str | None:
    if standing is None or breach.odometer > standing.odometer:
        return None
    if standing.kind != "breach" and breach.odometer == standing.odometer:
        return None  # the first trip of a battery that has only been started
    return (
        f"arrived after a newer revision: its odometer is {breach.odometer:.6g}, "
        f"that of revision {standing.number} is {standing.odometer:.6g}"
    )


def _obstacle(breach: Breach, running: RevisionRow | None) -> str | None:
    if running is not None and running.bundle != breach.bundle:
        return f"the vehicle ran revision {running.number}, which is for another bundle"
    return None


def _estimate(row: RevisionRow | None, manifest: Manifest) -> Estimate:
    if row is None:
        return calibration.prior(manifest)
    return calibration.estimate_of(decode_revision(row.content))


def _revision(
    breach: Breach,
    history: History,
    decision: MakeRevision,
    author: Author,
    now: float,
    prior: FleetPrior | None,
) -> Revision:
    found = decision.calibrated
    age = max(breach.odometer - history.battery_from, 0.0)
    estimate = found.estimate
    if prior is not None:  # the newest of the fleet knows best how ageing speeds up from here
        estimate = replace(estimate, growth=fleet_prior.growth_at(prior, age))
    if history.base is None:
        prior_version = _version_for(prior, age)
    else:
        prior_version = decode_revision(history.base.content).prior_version
    place = Place(breach.vehicle_id, breach.bundle, history.newest, breach.revision)
    return revision_at(
        place,
        estimate,
        base=history.base.number if history.base else 0,
        prior_version=prior_version,
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
        author=author,
        now=now,
    )


@dataclass(frozen=True)
class Place:
    """Where a revision comes in its vehicle's chain; `running` is the number that it says it runs.

    If the vehicle runs what this database has lost, only a higher number will be newer to it.
    """

    vehicle_id: str
    bundle: str
    newest: RevisionRow | None
    running: int


def revision_at(
    place: Place,
    estimate: Estimate,
    *,
    base: int,
    prior_version: int,
    cause: Cause,
    author: Author,
    now: float,
) -> Revision:
    """The revision that comes next in a vehicle's chain."""
    number, resumes_after = _next_number(place)
    return Revision(
        vehicle_id=place.vehicle_id,
        number=number,
        resumes_after=resumes_after,
        parent_hash=place.newest.hash if place.newest else GENESIS,
        base=base,
        prior_version=prior_version,
        bundle=place.bundle,
        **calibration.carried(estimate),
        cause=cause,
        created_at=now,
        code_version=author.code_version,
    )


def numbered(revision: Revision, place: Place) -> Revision:
    """The same content as the next in a vehicle's chain."""
    number, resumes_after = _next_number(place)
    parent_hash = place.newest.hash if place.newest else GENESIS
    return msgspec.structs.replace(
        revision, number=number, resumes_after=resumes_after, parent_hash=parent_hash
    )


def _next_number(place: Place) -> tuple[int, int]:
    """(number, resumes_after)."""
    before = place.newest.number if place.newest else 0
    resumes_after = place.running if place.running > before else 0
    return max(before, resumes_after) + 1, resumes_after
