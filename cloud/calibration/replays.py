"""Replay a vehicle's breaches from an earlier revision on: a new branch of lineage, never an edit.

Every breach that lowers the error becomes a revision at the end of the chain; only the last one is
sent, those before it are steps that never stand by themselves. Must never tell anybody.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from sqlmodel import Session

from cloud.bundles import Catalogue
from cloud.calibration import figures
from cloud.calibration.fleet_priors import FleetPriors
from cloud.calibration.revising import Author, case_of, inputs_of, revision_of, signed_row
from cloud.errors import RecalibrationError, TraceArchiveError, TraceFileError
from cloud.store import events, locks, recalibration_orders
from cloud.store.audit_tables import RecalibrationOrder
from cloud.store.database import Store
from cloud.store.pending_breaches import History
from cloud.store.recalibration_orders import Source
from cloud.store.tables import Breach, RevisionRow
from cloud.traces.archive import Archive
from cloud.traces.reading import Files, ReadBefore, whole
from common.calibration import Settings
from common.calibrator import Case, Decision, Decline, MakeRevision, decide
from common.fleet_prior import FleetPrior
from common.messages import message_id
from common.revision import decode_revision

log = logging.getLogger(__name__)

AT_ONCE: Final = 8
SUPERSEDED: Final = "superseded"
"""Why a step does not stand: the vehicle was never sent it."""


@dataclass(frozen=True)
class Step:
    """What a breach brought this time: a revision, not stored yet, or the reason for none."""

    breach: Breach
    row: RevisionRow | None
    reason: str | None
    error_before_v: float | None = None
    error_after_v: float | None = None


class Replays:
    """Orders of a store; one thread only."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        author: Author,
        priors: FleetPriors,
        clock: Callable[[], float],
        archive: Archive | None = None,
    ) -> None:
        self._store, self._catalogue, self._author = store, catalogue, author
        self._priors, self._clock, self._archive = priors, clock, archive

    def round(self, lane: int | None = None) -> list[RevisionRow]:
        """Carry out what is ordered; the last revision of each. Raises StoreUnavailableError."""
        with self._store.read() as db:
            orders = recalibration_orders.pending(db, AT_ONCE, lane)
        made = [self._tried(order) for order in orders]
        return [row for row in made if row is not None]

    def _tried(self, order: RecalibrationOrder) -> RevisionRow | None:
        """Without the archive of traces it waits, and nothing else waits with it."""
        try:
            return self._settle(order, self._traces_of(order))
        except TraceArchiveError as error:
            log.warning("recalibration_waits vehicle_id=%s error=%r", order.vehicle_id, str(error))
            return None

    def _traces_of(self, order: RecalibrationOrder) -> Files | None:
        """What it will need of the archive. Raises TraceArchiveError."""
        if self._archive is None:
            return None
        with self._store.read() as db:
            kept = db.get(RecalibrationOrder, order.id)
            is_due = kept is not None and kept.done_at is None
            if not is_due or recalibration_orders.waits(db, order.vehicle_id):
                return self._archive  # `_settle` needs nothing of it
            try:
                breaches = recalibration_orders.source(db, order).breaches
            except RecalibrationError:
                return self._archive  # `_settle` meets it again, and says so
        return ReadBefore(self._archive, breaches)

    def _settle(self, order: RecalibrationOrder, traces: Files | None) -> RevisionRow | None:
        """What cannot be followed any more is settled with its reason."""
        with self._store.write() as db:
            locks.vehicles(db, [order.vehicle_id])
            kept = db.get(RecalibrationOrder, order.id)
            if kept is None or kept.done_at is not None:
                return None  # another worker was faster
            if recalibration_orders.waits(db, order.vehicle_id):
                return None  # its turn comes
            kept.done_at = self._clock()
            try:
                last, kept.replayed = self._carried_out(db, kept, traces)
            except (RecalibrationError, TraceFileError) as error:
                log.warning("not_recalibrated vehicle_id=%s why=%r", kept.vehicle_id, error.problem)
                kept.problem = error.problem
                return None
            kept.revision = last.number
        return last

    def _carried_out(
        self, db: Session, order: RecalibrationOrder, traces: Files | None
    ) -> tuple[RevisionRow, int]:
        source = with_traces(db, traces, recalibration_orders.source(db, order))
        bundle = source.vehicle.bundle or ""
        if self._catalogue.find(bundle) is None:
            problem = f"its bundle {bundle[:12]} is none of this service's"
            raise RecalibrationError(order.vehicle_id, order.from_revision, problem)
        prior = self._priors.newest(db, bundle)
        steps = replayed(order, source, self._catalogue, prior, self._author, self._clock())
        rows = [step.row for step in steps if step.row is not None]
        if not rows:
            problem = f"none of {len(steps)} breaches lowers the error"
            raise RecalibrationError(order.vehicle_id, order.from_revision, problem)
        for row in rows:
            if row is not rows[-1]:
                row.verdict, row.verdict_reason = "refused", SUPERSEDED
            db.add(row)
            db.flush()
        events.of_vehicle(
            db, "order.done", self._clock(), source.vehicle,
            order=f"recalibration-{order.id}", revision=rows[-1].number,
        )  # fmt: skip
        source.vehicle.failures = 0
        source.vehicle.started = True
        model = self._catalogue.model(bundle)
        newest = decode_revision(rows[-1].content)
        figures.note([(source.vehicle, newest)], model, self._catalogue.manifest(bundle))
        return rows[-1], len(steps)


def with_traces(db: Session, archive: Files | None, source: Source) -> Source:
    """The same, with the traces that have been archived. Raises TraceFileError, TraceArchiveError.

    While an order waits nothing of its vehicle is archived.
    """
    return replace(source, breaches=[whole(db, archive, one) for one in source.breaches])


def replayed(
    order: RecalibrationOrder,
    source: Source,
    catalogue: Catalogue,
    prior: FleetPrior | None,
    author: Author,
    now: float,
) -> Sequence[Step]:
    """One step for each breach, in the order of the odometer; nothing is stored."""
    bundle = source.vehicle.bundle or ""
    manifest, model = catalogue.manifest(bundle), catalogue.model(bundle)
    base, newest, failures = source.base, source.newest, 0
    steps = []
    for breach in source.breaches:
        history = History(newest, base, base, base, failures, source.battery_from)
        case = case_of(breach, history, manifest, prior)
        decision: Decision = case if isinstance(case, Decline) else _decided(case, model, manifest)
        if isinstance(decision, Decline):
            failures += decision.blames_estimate
            steps.append(Step(breach, None, decision.reason))
            continue
        row = _row(order, breach, history, decision, prior, author, now)
        before_v, after_v = decision.error_before_v, decision.calibrated.error_after_v
        steps.append(Step(breach, row, None, before_v, after_v))
        base, newest, failures = row, row, 0
    return steps


def _decided(case: Case, model: object, manifest: object) -> Decision:
    [decision] = decide([case], model, manifest, Settings())  # type: ignore[arg-type]
    return decision


def _row(
    order: RecalibrationOrder,
    breach: Breach,
    history: History,
    decision: MakeRevision,
    prior: FleetPrior | None,
    author: Author,
    now: float,
) -> RevisionRow:
    made = revision_of(breach, history, decision, author, now, prior)
    cause = msgspec.structs.replace(
        made.cause,
        kind="recalibration",
        message_id=message_id(order.vehicle_id, f"{order.id} {breach.message_id}", "recalibration"),
        returns_to=order.from_revision,
        ordered_by=order.ordered_by[:64],
        why=order.why[:256],
        replays=breach.message_id,
    )
    inputs = msgspec.structs.replace(
        inputs_of(breach, history, prior), order=f"recalibration-{order.id}"
    )
    return signed_row(msgspec.structs.replace(made, cause=cause), author, inputs)
