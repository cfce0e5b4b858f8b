"""The agent: samples and events in, decisions carried out on disk and on the link.

Everything that must not be lost is committed before it is offered. Clock, link and state are passed
in; must never block on the network and never stop for bad input.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from common.bundle import Bundle
from common.errors import ContractError, MalformedMessageError
from common.messages import Receipt, Status, decode, encode
from common.model import VoltageModel
from common.signing import TrustedKeys
from common.topics import parse_topic
from edge_agent import __version__, kept, outbox, revision_intake
from edge_agent.checkpoints import Checkpoints, continues
from edge_agent.clock import Clock
from edge_agent.config import Derived, Limits, Trips
from edge_agent.decisions import Identity, Verdict
from edge_agent.errors import RefusedSampleError, StorageError
from edge_agent.finished_trips import FinishedTrips
from edge_agent.link import Accepted, Connected, Disconnected, Event, MqttLink, Received
from edge_agent.offers import Offers
from edge_agent.refusals import Refusals
from edge_agent.run_statistics import Statistics
from edge_agent.samples import Sample, header_problem
from edge_agent.sources import BadRow, Item, Skipped
from edge_agent.state import State
from edge_agent.trip_detection import Switch, TripStep, seen, step, turned
from edge_agent.trip_monitor import TripMonitor

log = logging.getLogger(__name__)

OFFER_INTERVAL_S = 1.0  # how often a receipt that does not come is looked for


@dataclass(frozen=True)
class TripRules:
    """How trips are told apart, and what is derived within them."""

    trips: Trips = field(default_factory=Trips)
    derived: Mapping[str, Derived] = field(default_factory=dict)


class Agent:
    """One vehicle's agent. Call `take` for each sample and `poll` often; one thread only."""

    def __init__(  # noqa: PLR0913 - each is another thing, passed in
        self,
        vehicle_id: str,
        bundle: Bundle,
        trusted: TrustedKeys,
        state: State,
        link: MqttLink,
        limits: Limits,
        clock: Clock,
        rules: TripRules = TripRules(),
    ) -> None:
        self.identity = Identity(vehicle_id, bundle.sha256, bundle.manifest, trusted)
        self.statistics = Statistics()
        self.connected = False
        self._is_outage_told = False
        self.twin = revision_intake.restore_twin(state, self.identity, VoltageModel(bundle))
        self._state, self._link, self._limits, self._clock = state, link, limits, clock
        self._rules = rules
        self._refusals = Refusals(state, vehicle_id, clock)
        bounds = outbox.Bounds(limits.outbox_messages, limits.outbox_bytes)
        self._finished = FinishedTrips(state, self.identity, bounds)
        self._offers = Offers(limits.receipt_timeout_s)
        self._monitor: TripMonitor | None = None
        self._previous: Sample | None = None
        self._skipping: str | None = None
        self._switch: Switch | None = None
        self._checkpoints: Checkpoints | None = None
        self._is_restored = False
        self._kept_at: dict[str, float] = {}
        self._next_status = self._next_offer = 0.0

    # ---- samples ------------------------------------------------------------------------------

    def take(self, item: Item) -> None:
        """One sample or bad row from the source. Never raises for bad input or a failing disk."""
        try:
            self._take(item)
        except (StorageError, sqlite3.Error) as error:
            self._refusals.trouble(error)

    def _take(self, item: Item) -> None:
        if isinstance(item, Skipped):
            self._refusals.skipped(item)
            return
        self.statistics.items += 1
        problem = item.reason if isinstance(item, BadRow) else header_problem(item)
        if isinstance(item, BadRow) or problem is not None:
            if self._monitor is not None:
                self._monitor.refused += 1
            self._refusals.sample(item, str(problem))
            return
        self._switch = turned(self._switch, item, self._rules.trips)
        sample = seen(item, self._switch)
        if self._is_restored:
            self._continue_or_close(sample)
        found = self._step(sample)
        if found.ends_running_trip:
            self.end_trip()
        if found.trip_id is not None:
            self._take_in_trip(found.trip_id, sample)
            self._previous = sample

    def ends_trip(self, item: Item) -> bool:
        """Whether this item would close the running trip."""
        if not isinstance(item, Sample) or header_problem(item) is not None:
            return False
        switch = turned(self._switch, item, self._rules.trips)
        return self._step(seen(item, switch)).ends_running_trip

    def keep_trips(self) -> None:
        """For a car that drives on whatever becomes of the agent: go on with the trip of before.

        From now on the running trip is written down now and then.
        """
        bundle = self.identity.bundle
        self._checkpoints = Checkpoints(
            self._state, self._refusals, bundle, self._limits, self._clock
        )
        found = self._checkpoints.restored(self.twin, self._rules.derived)
        if found is None:
            return
        monitor, last = found
        if self._is_finished(monitor.trip_id):
            self._checkpoints.forget(monitor.trip_id)
            return
        self._monitor, self._previous = monitor, last
        self._switch, self._is_restored = Switch(is_on=True), True

    def _continue_or_close(self, sample: Sample) -> None:
        """The first sample after a restart: of the same trip, or that trip stays what it was."""
        assert self._previous is not None  # noqa: S101 - restored with the trip
        unit = self.identity.manifest.odometer_unit
        why = continues(self._previous, sample, self._limits.trip_gap_s, unit)
        trip_id = self._running_trip()
        if why is None and sample.trip_id == self._previous.trip_id:
            self._is_restored = False
            log.info("trip_continued vehicle=%s trip=%s", self.identity.vehicle_id, trip_id)
            self._refusals.count("trips_continued")
            return
        told = "trip_not_continued vehicle=%s trip=%s why=%r"
        log.warning(told, self.identity.vehicle_id, trip_id, why or "the next one has begun")
        self.end_trip()

    def leave_trip(self) -> None:
        """Stop in the middle: write the trip down to go on later; else it is closed as partial."""
        monitor = self._monitor
        if monitor is None or self._is_restored:
            return  # what was restored is on disk as it is
        is_kept = self._checkpoints is not None and self._checkpoints.save(
            monitor, is_named=self._is_named()
        )
        if not is_kept:
            self.end_trip(partial=True)

    def _is_named(self) -> bool:
        return self._previous is not None and self._previous.trip_id is not None

    def end_silent_trip(self, silent_s: float) -> None:
        """Close the running trip when no sample has come for longer than a gap in time may last.

        One that the source names goes on when the source does.
        """
        if silent_s > self._limits.trip_gap_s and not self._is_named():
            self.end_trip()

    def end_trip(self, *, partial: bool = False) -> None:
        """Close the running trip: error, decision, disk. One too short is counted and dropped.

        One from before a restart of which nothing more came is partial: its end was not seen.
        """
        monitor, self._monitor = self._monitor, None
        partial, self._is_restored = partial or self._is_restored, False
        self._skipping = self._previous = None
        if monitor is None:
            return
        if monitor.samples < self._limits.min_trip_samples:
            self._refusals.count("short_trips")
            if self._checkpoints is not None:
                self._checkpoints.forget(monitor.trip_id)
            return
        if partial:
            self._refusals.count("partial_trips")
        self._finished.add(monitor.finish(partial=partial))
        self._save_trips()
        self._offer()

    def _take_in_trip(self, trip_id: str, sample: Sample) -> None:
        if self._running_trip() is None:
            self._begin_trip(trip_id, sample)
        if self._monitor is None:
            return
        try:
            self._monitor.add(sample)
        except RefusedSampleError as error:
            self._refusals.sample(sample, error.problem)
        if self._checkpoints is not None:
            is_named = sample.trip_id is not None
            self._checkpoints.save_when_due(self._monitor, is_named=is_named)

    def _begin_trip(self, trip_id: str, sample: Sample) -> None:
        """A trip that was reported before (a replay after a restart) is counted and passed over."""
        if self._is_finished(trip_id):
            self._skipping = trip_id
            self.statistics.passed_over += 1
            log.info("trip_passed_over vehicle=%s trip=%s", self.identity.vehicle_id, trip_id)
            self._refusals.count("trips_passed_over")
        else:
            points, derived = self._limits.trace_points, self._rules.derived
            self._monitor = TripMonitor(trip_id, sample, self.twin, points, derived)

    def _is_finished(self, trip_id: str) -> bool:
        """What cannot be read is not known: the cloud tells a trip that comes twice."""
        try:
            return kept.is_finished(self._state.connection, trip_id)
        except sqlite3.Error as error:
            self._refusals.trouble(error)
            return False

    def _step(self, sample: Sample) -> TripStep:
        return step(self._running_trip(), self._previous, sample, self._limits.trip_gap_s)

    def _running_trip(self) -> str | None:
        return self._monitor.trip_id if self._monitor else self._skipping

    # ---- finished trips -----------------------------------------------------------------------

    def _save_trips(self) -> None:
        for breach in self._finished.save():
            self.statistics.trips += 1
            if breach is not None:
                self.statistics.breaches += 1
                self._kept_at[breach.message_id] = self._clock.monotonic()
        while len(self._kept_at) > kept.KEPT_TRACES:
            self._kept_at.pop(next(iter(self._kept_at)))

    # ---- the link -----------------------------------------------------------------------------

    def poll(self, timeout_s: float = 0.0) -> None:
        """Handle what the link reports, waiting at most `timeout_s` for the first event.

        Never raises for a failing disk.
        """
        try:
            self._poll(timeout_s)
        except (StorageError, sqlite3.Error) as error:
            self._refusals.trouble(error)

    def _poll(self, timeout_s: float) -> None:
        event = self._link.next_event(timeout_s)
        happened = event is not None
        while event is not None:
            self._handle(event)
            event = self._link.next_event(0.0)
        if happened or self._clock.monotonic() >= self._next_offer:
            self._save_trips()
            self._offer()
            self._publish_status_when_due()

    def is_settled(self) -> bool:
        """Whether the outcome of every breach is known, and nothing is left to be stored."""
        return not self._finished and not kept.awaiting(self._state.connection)

    def is_drained(self) -> bool:
        """Whether the cloud has sent a receipt for everything."""
        return self.is_settled() and outbox.size(self._state.connection)[0] == 0

    def status(self) -> Status:
        """What the agent says of itself."""
        db = self._state.connection
        counters = kept.counters(db)
        return Status(
            vehicle_id=self.identity.vehicle_id,
            online=True,
            agent_version=__version__,
            bundle=self.identity.bundle,
            revision=self.twin.revision,
            outbox_depth=outbox.size(db)[0],
            dropped_trips=counters.get("dropped_trip", 0),
            dropped_breaches=counters.get("dropped_breach", 0),
            refused_samples=counters.get("refused_sample", 0),
            refused_messages=counters.get("refused_message", 0),
            awaiting=kept.awaiting(db)[-16:],
            sent_at=round(self._clock.unix(), 3),
        )

    def short_trips(self) -> int:
        """How many trips had too few samples to be reported, ever."""
        return kept.counters(self._state.connection).get("short_trips", 0)

    def say_goodbye(self) -> None:
        """Leave the word *offline* behind: after a clean end the broker sends no last will."""
        if self.connected:
            farewell = msgspec.structs.replace(self.status(), online=False)
            self._link.publish("status", encode(farewell), retain=True)

    def traffic_bytes(self) -> tuple[int, int]:
        """(sent, received) since the start: payloads and topics."""
        return self._link.bytes_sent, self._link.bytes_received

    def _publish_status(self) -> None:
        self._link.publish("status", encode(self.status()), retain=True)
        self._next_status = self._clock.monotonic() + self._limits.status_interval_s

    def _publish_status_when_due(self) -> None:
        if self.connected and self._clock.monotonic() >= self._next_status:
            self._publish_status()

    def _offer(self) -> None:
        now = self._clock.monotonic()
        self._next_offer = now + OFFER_INTERVAL_S
        if not self.connected:
            return
        try:
            self._offers.offer(self._state.connection, self._link.publish, now)
        except sqlite3.Error as error:
            self._refusals.trouble(error)

    def _handle(self, event: Event) -> None:
        match event:
            case Connected():
                self.connected = True
                self._is_outage_told = False
                self._offers.reconnected()
                self._publish_status()
            case Disconnected(why):
                self._tell_outage(why)
                self.connected = False
            case Accepted(mid):
                self._offers.accepted(mid)
            case Received(name, payload):
                self._receive(name, payload)

    def _tell_outage(self, why: str) -> None:
        """Once for each outage: the link tries for as long as it lasts."""
        if not self._is_outage_told:
            told = "broker_unreachable vehicle=%s why=%r: trips are kept; trying until it answers"
            log.warning(told, self.identity.vehicle_id, why)
        self._is_outage_told = True

    def _receive(self, name: str, payload: bytes) -> None:
        """A garbage message is counted and kept; a full disk leaves the old parameters in force."""
        try:
            vehicle_id, kind = parse_topic(name)
            if vehicle_id == self.identity.vehicle_id and kind == "receipt":
                self._take_receipt(decode(payload, Receipt))
            elif vehicle_id == self.identity.vehicle_id and kind == "parameters":
                self._take_revision(payload)
        except ContractError as error:
            self._refusals.message(str(error), payload)
        except StorageError as error:
            log.warning("message_not_stored vehicle=%s error=%s", self.identity.vehicle_id, error)

    def _take_receipt(self, receipt: Receipt) -> None:
        if receipt.vehicle_id != self.identity.vehicle_id:
            raise MalformedMessageError("Receipt", f"it is addressed to {receipt.vehicle_id}")
        with self._state.transaction() as db:
            outbox.free(db, receipt.message_ids)
            for declined in receipt.declined:
                kept.settle(db, declined.message_id)
        self._offers.freed(receipt.message_ids)
        for declined in receipt.declined:
            log.info("breach_declined message=%s why=%r", declined.message_id, declined.reason)

    def _take_revision(self, payload: bytes) -> None:
        verdict = revision_intake.consider(payload, self.twin, self._state, self.identity)
        if verdict is None:
            return
        if not verdict.applied:
            self._refusals.message(f"{verdict.reason}: {verdict.detail}", payload)
        revision_intake.record(verdict, payload, self._state, self.identity, self._clock.unix())
        self._note(verdict)
        if verdict.applied:
            self.twin = revision_intake.twin_of(verdict, self.identity, self.twin.model)
            if self.connected:
                self._publish_status()

    def _note(self, verdict: Verdict) -> None:
        self.statistics.applied += verdict.applied
        self.statistics.refused += not verdict.applied
        cause = verdict.revision.cause.message_id if verdict.revision else ""
        kept_at = self._kept_at.pop(cause, None)
        if verdict.applied and kept_at is not None:
            self.statistics.add_latency(self._clock.monotonic() - kept_at)
        log.info(
            "revision_judged vehicle=%s revision=%s verdict=%s detail=%r",
            *(self.identity.vehicle_id, verdict.revision and verdict.revision.number),
            *(verdict.reason or "applied", verdict.detail),
        )
