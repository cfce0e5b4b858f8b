"""Write what vehicles say: each message is one fact, however often it comes.

Must never act on the outside: what is to be sent comes back as `Effects`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlmodel import Session, col, select

from cloud.errors import UnknownRevisionError
from cloud.intake.interpretation import KINDS, Delivery, Upward, refused_offer
from cloud.store import (
    events,
    evidence,
    expectations,
    judged,
    key_statements,
    locks,
    notes,
    quarantined,
    releases,
    revisions,
    verdicts,
)
from cloud.store.bulk import Insert
from cloud.store.effects import Effects, Verdict
from cloud.store.lanes import lane_of
from cloud.store.membership import among
from cloud.store.quarantined import Refused
from cloud.store.tables import Breach, ProvisionalRow, RevisionRow, Trip, Vehicle
from cloud.store.totals import TOTALS, Totals
from common import messages
from common.errors import UnknownSchemaError
from common.freshness import Freshness
from common.messages import Acknowledgement, Declined, Provisional, Status, TripSummary
from common.release import BundleAck, Fetch

# Built once: putting a statement together costs more than running it.
_KNOWN_BREACHES = (
    select(Breach.vehicle_id, Breach.message_id, Breach.bundle)
    .add_columns(col(Breach.state), col(Breach.reason))
    .where(among(Breach.message_id, "ids"))
)
_KNOWN_TRIPS = select(Trip.vehicle_id, Trip.message_id).where(among(Trip.message_id, "ids"))
_TRIP_FIELDS: Final = [f for f in TripSummary.__struct_fields__ if f != "schema"]
_ADD_TRIPS: Final = Insert(Trip.__table__, [*_TRIP_FIELDS, "received_at"])  # type: ignore[attr-defined]
_BREACH_FIELDS: Final = [
    f for f in messages.Breach.__struct_fields__ if f not in {"schema", "trace"}
]
_ADD_BREACHES: Final = Insert(
    Breach.__table__,  # type: ignore[attr-defined]
    [*_BREACH_FIELDS, "trace", "received_at", "state", "lane", "tries"],
)
_KIND_OF: Final = {message: kind for kind, message in KINDS.items()}
# Where what it answers is not known, it is refused, and brings no vehicle into being.
_Answer = Acknowledgement | BundleAck | Fetch
_NOT_KEPT: Final = {"schema", "vehicle_id", "awaiting", "question", "sent_at"}


class _KnownBreach(NamedTuple):
    """What an answer to a breach that came before needs of it."""

    vehicle_id: str
    message_id: str
    bundle: str
    state: str = "pending"
    reason: str | None = None


def _known_breaches(db: Session, message_ids: Sequence[str]) -> list[_KnownBreach]:
    if not message_ids:
        return []
    rows = db.connection().execute(_KNOWN_BREACHES, {"ids": message_ids})
    return [_KnownBreach(*row) for row in rows]


class Recorder:
    """Adds the messages of one transaction; what is known of them is read once, beforehand.

    Their vehicles are locked first: another writer that has the same message comes after.
    """

    def __init__(
        self, db: Session, news: Sequence[Upward], now: float, known: Collection[str] = ()
    ) -> None:
        """`known` are vehicles that are there: nobody ever removes one."""
        self.effects = Effects()
        self._db, self._now = db, now
        self._new_trips: list[dict[str, object]] = []
        self._new_breaches: list[dict[str, object]] = []
        breaches = [m.message_id for m in news if isinstance(m, messages.Breach)]
        trips = [m.message_id for m in news if isinstance(m, TripSummary)]
        acks = [m for m in news if isinstance(m, Acknowledgement)]
        named = {m.vehicle_id for m in news if not isinstance(m, _Answer)}
        locks.add_vehicles(db, named.difference(known), now)
        whole = {m.vehicle_id for m in news if isinstance(m, Status)}
        held = TOTALS.locked(db, {m.vehicle_id for m in news})
        self._totals = {name: one for name, one in held.items() if name not in whole}
        self._vehicles = locks.vehicles(db, whole)
        self._newest_keys = key_statements.newest(db) if whole else 0
        self._judged = judged.named_by(db, acks)
        self._said: list[notes.Note] = []
        self._new_verdicts: dict[int, judged.Judged] = {}
        self._present: dict[str, Status] = {}  # the last word of those that are online
        self._breaches = {
            (row.vehicle_id, row.message_id): row for row in _known_breaches(db, breaches)
        }
        self._trips = set(db.exec(_KNOWN_TRIPS, params={"ids": trips}) if trips else ())

    def record(self, message: Upward, *, retained: bool = False) -> None:
        """Add one message. Raises UnknownRevisionError, UnknownReleaseError, nothing written."""
        row = self._acknowledged(message) if isinstance(message, Acknowledgement) else None
        if isinstance(message, BundleAck | Fetch):
            releases.heard(self._db, message, self._now)
        is_news = self._write(message, row, retained=retained)
        if not isinstance(message, Status | Fetch):
            self.effects.receipt_for(message.vehicle_id, message.message_id)
        self.effects.counts[_KIND_OF[type(message)], "stored" if is_news else "repeated"] += 1
        if is_news:
            self.effects.news.append(message)

    def _write(self, message: Upward, row: judged.Judged | None, *, retained: bool) -> bool:
        """Whether it says anything new; of status, requests and releases always."""
        vehicle = self._totals.get(message.vehicle_id) or self._vehicle(message.vehicle_id)
        vehicle.last_seen_at = vehicle.last_seen_at if retained else self._now
        match message:
            case TripSummary():
                return self._record_trip(vehicle, message)
            case messages.Breach():
                return self._record_breach(vehicle, message)
            case Provisional():
                return self._record_provisional(message)
            case Acknowledgement() if row is not None:
                return self._record_verdict(vehicle, row, message)
            case Status():
                self._record_status(self._vehicle(message.vehicle_id), message)
            case Fetch():
                self.effects.fetches.append(message)
        return True

    def finish(self) -> None:
        """Write what was gathered, in a few statements: last, before the commit."""
        self._write_verdicts()
        TOTALS.write(self._db, self._totals.values())
        _ADD_TRIPS.execute(self._db, self._new_trips)
        _ADD_BREACHES.execute(self._db, self._new_breaches)
        self._answer_status()
        quarantined.keep(self._db, self.effects.refused, self._now)

    def _write_verdicts(self) -> None:
        """What vehicles said so far: before anything is asked that depends on it."""
        notes.add_verdicts(self._db, self._said)
        judged.write(self._db, self._new_verdicts.values())
        if self._new_verdicts:  # what was read of them before is old
            for row in [one for one in self._db if isinstance(one, RevisionRow)]:
                self._db.expunge(row)
        self._said, self._new_verdicts = [], {}

    def _vehicle(self, vehicle_id: str) -> Vehicle:
        if vehicle_id not in self._vehicles:
            locks.add_vehicles(self._db, [vehicle_id], self._now)
            self._vehicles |= locks.vehicles(self._db, [vehicle_id])
        return self._vehicles[vehicle_id]

    def _record_trip(self, vehicle: Vehicle | Totals, trip: TripSummary) -> bool:
        if (trip.vehicle_id, trip.message_id) in self._trips:
            return False
        self._trips.add((trip.vehicle_id, trip.message_id))
        fields = {name: getattr(trip, name) for name in _TRIP_FIELDS}
        fields["feature_means"] = msgspec.json.encode(trip.feature_means)
        fields["received_at"] = self._now
        self._new_trips.append(fields)
        vehicle.trips += 1
        self.effects.newcomers += vehicle.trips == 1
        vehicle.bundle = vehicle.bundle or trip.bundle
        vehicle.last_trip_received_at = self._now
        if vehicle.odometer is None or trip.odometer_end >= vehicle.odometer:
            vehicle.odometer = trip.odometer_end
            vehicle.last_trip_error_v = trip.error_v
        return True

    def _record_breach(self, vehicle: Vehicle | Totals, breach: messages.Breach) -> bool:
        key = (breach.vehicle_id, breach.message_id)
        if key in self._breaches:
            self._tell_again(self._breaches[key], breach)
            return False
        fields = {name: getattr(breach, name) for name in _BREACH_FIELDS}
        fields |= {"trace": msgspec.json.encode(breach.trace), "received_at": self._now}
        fields |= {"state": "pending", "lane": lane_of(breach.vehicle_id), "tries": 0}
        self._new_breaches.append(fields)
        self._breaches[key] = _KnownBreach(*key, breach.bundle)
        vehicle.breaches += 1
        self.effects.new_breaches += 1
        self.effects.waiting.add(breach.vehicle_id)
        return True

    def _record_provisional(self, made: Provisional) -> bool:
        """Beside the chain, never in it."""
        known = select(ProvisionalRow.id).where(
            ProvisionalRow.vehicle_id == made.vehicle_id,
            ProvisionalRow.message_id == made.message_id,
        )
        if self._db.exec(known).first() is not None:
            return False
        columns = ("vehicle_id", "message_id", "bundle", "base", "step", "odometer")
        fields = {name: getattr(made, name) for name in columns}
        content = messages.encode(made)
        self._db.add(ProvisionalRow(**fields, content=content, received_at=self._now))
        self._db.flush()  # the same may come again in this batch
        return True

    def _record_status(self, vehicle: Vehicle, status: Status) -> None:
        if vehicle.online is not status.online:
            kind = "vehicle.online" if status.online else "vehicle.offline"
            events.of_vehicle(self._db, kind, self._now, vehicle)
        if not status.online and not status.sent_at:
            vehicle.online = False  # the last will was written before anything had happened
            return
        _keep(vehicle, status)
        if status.online:
            self._present[status.vehicle_id] = status

    def _answer_status(self) -> None:
        """What those who are there lack: looked up at once for all, after everything else."""
        if not self._present:
            return
        self._db.flush()
        for vehicle_id, expected in expectations.of(self._db, self._present):
            status = self._present[vehicle_id]
            if status.key_statement < self._newest_keys:
                self.effects.behind_on_keys.add(vehicle_id)
            if status.question:
                self.effects.asked[vehicle_id] = Freshness(
                    kind="freshness",
                    vehicle_id=vehicle_id,
                    nonce=status.question,
                    revision=expected.revision,
                    key_statement=self._newest_keys,
                )
            is_behind = expected.revision > status.revision
            if is_behind or expected.release > status.bundle_release:
                self.effects.republish.add(vehicle_id)
            for breach in revisions.breaches_of(self._db, vehicle_id, status.awaiting):
                self._tell_outcome(breach)

    def _tell_again(self, known: _KnownBreach, breach: messages.Breach) -> None:
        """The same trip under another bundle is no new fact, and the old outcome does not fit."""
        if known.bundle == breach.bundle:
            self._tell_outcome(known)
            return
        reason = f"its trip was reported before, with bundle {known.bundle[:12]}"
        self.effects.decline(breach.vehicle_id, Declined(breach.message_id, reason))

    def _tell_outcome(self, breach: Breach | _KnownBreach) -> None:
        """Say again what became of a breach: why it was declined, or its revision."""
        if breach.state == "declined":
            declined = Declined(breach.message_id, breach.reason or "")
            self.effects.decline(breach.vehicle_id, declined)
        elif breach.state == "calibrated":
            self._tell_revision(breach)
        else:
            self.effects.waiting.add(breach.vehicle_id)

    def _tell_revision(self, breach: Breach | _KnownBreach) -> None:
        self._write_verdicts()
        made = revisions.caused_by(self._db, breach.vehicle_id, breach.message_id)
        newest = revisions.newest_standing(self._db, breach.vehicle_id, breach.bundle)
        if made is None:
            return
        if made.verdict == "refused":
            reason = f"the vehicle refused its revision {made.number}: {made.verdict_reason}"
            self.effects.decline(breach.vehicle_id, Declined(breach.message_id, reason))
        elif newest is not None and newest.number > made.number:
            reason = f"its revision {made.number} gave way to revision {newest.number}"
            self.effects.decline(breach.vehicle_id, Declined(breach.message_id, reason))
        else:  # also when it was applied: a vehicle that asks has lost it
            self.effects.republish.add(breach.vehicle_id)

    def _acknowledged(self, ack: Acknowledgement) -> judged.Judged:
        row = self._judged.get((ack.vehicle_id, ack.revision))
        if row is None or row.hash != ack.revision_hash:
            raise UnknownRevisionError(ack.vehicle_id, ack.revision, ack.revision_hash)
        return row

    def _record_verdict(
        self, vehicle: Vehicle | Totals, row: judged.Judged, ack: Acknowledgement
    ) -> bool:
        self._said.append(notes.of_verdict(row, ack, self._now))
        if not verdicts.record(vehicle, row, ack, self._now):
            return False
        told: dict[str, Any] = {
            "revision": ack.revision,
            "verdict": ack.verdict,
            "reason": ack.reason,
        }
        kind = "revision.refused" if ack.verdict == "refused" else "revision.acknowledged"
        events.of_vehicle(self._db, kind, self._now, vehicle, **told)
        self._new_verdicts[row.id] = row
        self.effects.verdicts.append(Verdict(row, ack))
        return True


def refuse(delivery: Delivery, error: Exception, effects: Effects) -> None:
    """Note a refused message, to be kept for the operator before the commit (`keep_refused`).

    What will be refused for ever gets its receipt, so that the vehicle lets go of it; a message of
    a future schema does not: the software that reads it may come.
    """
    effects.refused.append(Refused(delivery, error))
    effects.quarantined += 1
    effects.counts[_kind_of(delivery), "quarantined"] += 1
    effects.reasons[type(error).__name__] += 1
    offered = refused_offer(delivery)
    if offered is not None and not isinstance(error, UnknownSchemaError):
        effects.receipt_for(offered.vehicle_id, offered.message_id)
        if offered.kind == "breach":
            effects.decline(offered.vehicle_id, Declined(offered.message_id, str(error)[:256]))


def _keep(vehicle: Vehicle, status: Status) -> None:
    if vehicle.bundle not in {None, status.bundle}:
        evidence.forget(vehicle)
    for name in status.__struct_fields__:
        if name not in _NOT_KEPT:
            setattr(vehicle, name, getattr(status, name))


def _kind_of(delivery: Delivery) -> str:
    kind = delivery.topic.rpartition("/")[2]
    return kind if kind in KINDS else "other"
