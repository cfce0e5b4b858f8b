"""From the database's rows to the calibration's arrays and back: a case, then a new revision.

Pure. Must never look at a clock or sign with anything but the key it is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import msgspec

from cloud.audit.inputs import Inputs, hash_of, this_platform
from cloud.audit.inputs import encode as encode_inputs
from cloud.store.new_revisions import NewRevision, as_row
from cloud.store.pending_breaches import History
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

stored = lru_cache(maxsize=256)(decode_revision)
"""What a row holds; a round asks more than once for the same."""


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


def inputs_of(breach: Breach, history: History, prior: FleetPrior | None) -> Inputs:
    """What the revision of a breach is made from, beyond its content."""
    return Inputs(
        prior=prior.version if prior else 0,
        running=history.running.number if history.running else 0,
        provisional=breach.provisional,
        failures=history.failures,
        battery_from=history.battery_from,
        platform=this_platform(),
    )


def signed_row(revision: Revision, author: Author, inputs: Inputs) -> RevisionRow:
    """The same as `signed_new`, as a row for a session."""
    return as_row(signed_new(revision, author, inputs))


def signed_new(revision: Revision, author: Author, inputs: Inputs) -> NewRevision:
    """A revision as it is stored: hashed and signed, with what it was made from."""
    kept = encode_inputs(inputs)
    revision = msgspec.structs.replace(revision, inputs_hash=hash_of(kept))
    content = encode_revision(revision)
    signed = sign(content, author.key)
    return NewRevision(
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
        inputs=kept,
    )


def signed_message(row: RevisionRow | NewRevision) -> SignedRevision:
    """The message that carries a stored revision, as it was signed when it was made."""
    return SignedRevision(key_id=row.key_id, signature=row.signature, revision=row.content.decode())


def signed_now(row: RevisionRow | NewRevision, author: Author) -> SignedRevision:
    """The same, signed again where the author's key is another by now; the content is the same."""
    if row.key_id == key_id(author.key.public_key()):
        return signed_message(row)
    return sign(row.content, author.key)


def _lateness(breach: Breach, standing: RevisionRow | None) -> str | None:
    if standing is None or breach.odometer > standing.odometer:
        return None
    if standing.kind not in {"breach", "recalibration"} and breach.odometer == standing.odometer:
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
    return calibration.estimate_of(stored(row.content))


def revision_of(
    breach: Breach,
    history: History,
    decision: MakeRevision,
    author: Author,
    now: float,
    prior: FleetPrior | None,
) -> Revision:
    """What a decision on a breach makes of it: the next revision of its vehicle."""
    place = Place(breach.vehicle_id, breach.bundle, history.newest, breach.revision)
    base = history.base.number if history.base else 0
    return revision_at(
        place,
        grown(breach, history, decision, prior),
        base=base,
        prior_version=_began_with(breach, history, prior),
        cause=cause_of(breach, decision),
        author=author,
        now=now,
    )


def revised(
    made: Revision,
    breach: Breach,
    history: History,
    decision: MakeRevision,
    prior: FleetPrior | None,
) -> Revision:
    """A revision that was made, with what a decision on its breach says now."""
    own = made.cause
    cause = msgspec.structs.replace(
        cause_of(breach, decision),
        kind=own.kind,
        message_id=own.message_id,
        replays=own.replays,
        returns_to=own.returns_to,
        ordered_by=own.ordered_by,
        why=own.why,
    )
    return msgspec.structs.replace(
        made,
        **calibration.carried(grown(breach, history, decision, prior)),
        prior_version=_began_with(breach, history, prior),
        cause=cause,
    )


def grown(
    breach: Breach, history: History, decision: MakeRevision, prior: FleetPrior | None
) -> Estimate:
    """The posterior; the newest of the fleet knows best how ageing speeds up from here."""
    estimate = decision.calibrated.estimate
    if prior is None:
        return estimate
    return replace(estimate, growth=fleet_prior.growth_at(prior, _age(breach, history)))


def cause_of(breach: Breach, decision: MakeRevision) -> Cause:
    """What the calibration of a breach saw."""
    found = decision.calibrated
    return Cause(
        kind="breach",
        finding="changed_battery" if found.finding == "changed_battery" else "drift",
        message_id=breach.message_id,
        trip_id=breach.trip_id,
        points=found.points,
        nis=found.nis,
        error_before_v=decision.error_before_v,
        error_after_v=found.error_after_v,
    )


def _began_with(breach: Breach, history: History, prior: FleetPrior | None) -> int:
    if history.base is None:
        return _version_for(prior, _age(breach, history))
    return stored(history.base.content).prior_version


def _age(breach: Breach, history: History) -> float:
    return max(breach.odometer - history.battery_from, 0.0)


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
