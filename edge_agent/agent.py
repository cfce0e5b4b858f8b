"""The agent: samples and events in, decisions carried out on disk and on the link.

Everything that must not be lost is committed before it is offered. Clock, link and state are passed
in; must never block on the network and never stop for bad input.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import msgspec

from common.bundle import Bundle
from common.errors import ContractError, MalformedMessageError
from common.messages import Receipt, Status, decode, encode
from common.model import VoltageModel
from common.topics import parse_topic
from common.trust import TrustStore
from edge_agent import __version__
from edge_agent.bundle_update.updater import FLOOR, BundleUpdates
from edge_agent.config import Limits
from edge_agent.config import LocalRecalibration as LocalSettings
from edge_agent.errors import StorageError
from edge_agent.mqtt.link import Accepted, Connected, Disconnected, Event, MqttLink, Received
from edge_agent.mqtt.offers import STATUSES, Offers
from edge_agent.parameters import key_intake, revision_intake, trials
from edge_agent.parameters.cloud_word import CloudWord, trips_since
from edge_agent.parameters.decisions import Identity, Verdict
from edge_agent.parameters.local_recalibration import LocalRecalibration
from edge_agent.run_statistics import Statistics
from edge_agent.sources import Item
from edge_agent.storage import kept, outbox
from edge_agent.storage.refusals import Refusals
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import Clock
from edge_agent.timekeeping.timekeeper import Timekeeper
from edge_agent.trips.driving import PLAIN_TRIPS, Driving, TripRules
from edge_agent.trips.finished_trips import FinishedTrips
from edge_agent.trips.trip_values import TripResult

log = logging.getLogger(__name__)

T = TypeVar("T")

DAY_S = 86_400.0
OFFER_INTERVAL_S = 1.0  # how often a receipt that does not come is looked for
EVENTS_A_POLL = 64  # whatever the broker sends, samples are taken in between


class Agent:
    """One vehicle's agent. Call `take` for each sample and `poll` often; one thread only."""

    def __init__(  # noqa: PLR0913 - each is another thing, passed in
        self,
        vehicle_id: str,
        bundle: Bundle,
        trusted: TrustStore,
        state: State,
        link: MqttLink,
        limits: Limits,
        clock: Clock,
        rules: TripRules = PLAIN_TRIPS,
        local: LocalSettings | None = None,
    ) -> None:
        trusted = key_intake.restore_trust(state, trusted)
        self.identity = Identity(vehicle_id, bundle.sha256, bundle.manifest, trusted)
        self.statistics = Statistics()
        self.connected = False
        self._is_outage_told = False
        self._base = revision_intake.restore_twin(state, self.identity, VoltageModel(bundle))
        self.twin = self._base
        self._state, self._link, self._limits, self._clock = state, link, limits, clock
        self._time = Timekeeper(state, clock)
        self._refusals = Refusals(state, vehicle_id, self._time)
        self._local: LocalRecalibration | None = None
        if local is not None:
            self._local = LocalRecalibration(local, state, self.identity, self._time)
            self.twin = self._local.restored(self._base)
        bounds = outbox.Bounds(
            limits.outbox_messages, limits.outbox_bytes, limits.outbox_days * DAY_S
        )
        self._finished = FinishedTrips(state, self.identity, bounds, self._time)
        self._offers = Offers(limits.receipt_timeout_s)
        self.driving = Driving(
            *(self.identity, state, limits, rules, self._time, self._refusals),
            statistics=self.statistics,
            twin=lambda: self.twin,
            finished=self._take_trip,
        )
        self._word = CloudWord(state, vehicle_id, partial(secrets.token_hex, 16))
        self.updates: BundleUpdates | None = None  # an agent that replays takes none
        self._kept_at: dict[str, float] = {}
        self._next_status = self._next_offer = 0.0
        self._statuses: set[int] = set()  # those without their PUBACK

    def take_updates(self, made: Callable[[Refusals], BundleUpdates]) -> None:
        """Take other bundles over the air from now on."""
        self.updates = made(self._refusals)

    # ---- samples ------------------------------------------------------------------------------

    def take(self, item: Item) -> None:
        """One sample or bad row from the source. Never raises for bad input or a failing disk."""
        self.driving.take(item)

    def _take_trip(self, result: TripResult) -> None:
        self._finished.add(result)
        self._save_trips()
        self._offer()

    # ---- finished trips -----------------------------------------------------------------------

    def _save_trips(self) -> None:
        saved = self._finished.save()
        for breach in saved:
            self.statistics.trips += 1
            if breach is not None:
                self.statistics.breaches += 1
                self._kept_at[breach.message_id] = self._clock.monotonic()
            self._refusals.write()
        self._end_trials()
        if self._local is not None:
            for breach in saved:
                if breach is not None:
                    self.twin = self._local.after(breach, self.twin)
        while len(self._kept_at) > kept.KEPT_TRACES:
            self._kept_at.pop(next(iter(self._kept_at)))

    def _end_trials(self) -> None:
        while self._finished.trial_ends:
            end = self._finished.trial_ends.popleft()
            self.statistics.fallen_back += end.fell_back
            base, self._base = self._base, trials.after(self._base, end)
            if end.fell_back or self.twin is base:
                self._run_base(f"revision {end.revision} has ended its trial")
            if end.fell_back and self.connected:
                self._publish_status()

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
        self._state.mend()
        if self._time.poll() and self.connected:
            self._publish_status()
        happened = False
        for _ in range(EVENTS_A_POLL):
            event = self._link.next_event(0.0 if happened else timeout_s)
            if event is None:
                break
            happened = True
            self._handle(event)
        if happened or self._clock.monotonic() >= self._next_offer:
            self._publish_status_when_due()
            self._save_trips()
            self._refusals.write_when_due()
            self._update_bundle()
            self._offer()

    def _update_bundle(self) -> None:
        if self.updates is not None:
            publish = self._link.publish if self.connected else None
            in_trip, trips = self.driving.is_in_trip, self.statistics.trips
            self.updates.turn(publish, in_trip=in_trip, trips=trips)

    def is_settled(self) -> bool:
        """Whether the outcome of every breach is known, and nothing is left to be stored."""
        return not self._finished and not self._read(kept.awaiting)

    def is_drained(self) -> bool:
        """Whether the cloud has sent a receipt for everything."""
        return self.is_settled() and self._read(outbox.size)[0] == 0

    def status(self) -> Status:
        """What the agent says of itself."""
        self._refusals.write()
        now = self._time.now()
        counters = Counter(self._read(kept.counters)) + self._refusals.counts
        return Status(
            vehicle_id=self.identity.vehicle_id,
            online=True,
            agent_version=__version__,
            bundle=self.identity.bundle,
            revision=self.twin.revision,
            outbox_depth=self._read(outbox.size)[0],
            dropped_trips=counters["dropped_trip"],
            dropped_breaches=counters["dropped_breach"],
            refused_samples=counters["refused_sample"],
            refused_messages=counters["refused_message"],
            on_trial=self._base.confirmed is not None,
            fallen_back=counters[trials.FALLEN_BACK],
            key_statement=self.identity.trusted.number,
            trips_since_word=self._read(trips_since),
            awaiting=self._read(kept.awaiting)[-16:],
            bundle_release=counters.get(FLOOR, 0),
            sent_at=round(now.unix_s, 3),
            time_known=now.is_known,
            provisional=self.twin.provisional,
        )

    @property
    def database(self) -> sqlite3.Connection:
        """To be read, by the thread that the agent runs in."""
        return self._state.connection

    def short_trips(self) -> int:
        """How many trips had too few samples to be reported, ever."""
        return self._read(kept.counters).get("short_trips", 0)

    def say_goodbye(self) -> None:
        """Leave the word *offline* behind: after a clean end the broker sends no last will."""
        self._refusals.write()
        if not self.connected:
            return
        try:
            farewell = msgspec.structs.replace(self.status(), online=False)
            self._link.publish("status", encode(farewell), retain=True)
        except sqlite3.Error as error:
            self._refusals.trouble(error)

    def _read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """What the state says; where it is broken, what the mended one says."""
        try:
            return read(self._state.connection)
        except sqlite3.Error as error:
            self._refusals.trouble(error)
            return read(self._state.connection)

    def traffic_bytes(self) -> tuple[int, int]:
        """(sent, received) since the start: payloads and topics."""
        return self._link.bytes_sent, self._link.bytes_received

    def _publish_status(self) -> None:
        """A line that takes none is not filled with them: the next one says it all."""
        self._next_status = self._clock.monotonic()
        if len(self._statuses) >= STATUSES:
            return
        question = self._word.question(self._clock.monotonic())
        status = msgspec.structs.replace(self.status(), question=question)
        mid = self._link.publish("status", encode(status), retain=True)
        if mid is None:
            self._word.ask_again()
        else:
            self._statuses.add(mid)
            self._next_status += self._limits.status_interval_s

    def _publish_status_when_due(self) -> None:
        if self.connected and self._clock.monotonic() >= self._next_status:
            self._publish_status()

    def _offer(self) -> None:
        now = self._clock.monotonic()
        self._next_offer = now + OFFER_INTERVAL_S
        if not self.connected:
            return
        try:
            more_s = self._offers.offer(self._state.connection, self._link.publish, now)
            self._next_offer = now + min(OFFER_INTERVAL_S, more_s)
        except sqlite3.Error as error:
            self._refusals.trouble(error)

    def _handle(self, event: Event) -> None:
        match event:
            case Connected(limits):
                self.connected = True
                if self._local is not None:
                    self._local.connected()
                self._is_outage_told = False
                self._offers.reconnected(limits)
                self._statuses.clear()
                self._word.ask_again()
                if self.updates is not None:
                    self.updates.reconnected()
                self._publish_status()
            case Disconnected(why):
                self._tell_outage(why)
                if self._local is not None:
                    self._local.disconnected()
                self.connected = False
            case Accepted(mid):
                self._statuses.discard(mid)
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
            elif vehicle_id == self.identity.vehicle_id and kind == "keys":
                self._take_keys(payload)
            elif vehicle_id == self.identity.vehicle_id and self.updates is not None:
                self.updates.receive(kind, payload)
        except ContractError as error:
            self._refusals.message(str(error), payload)
        except StorageError as error:
            log.warning("message_not_stored vehicle=%s error=%s", self.identity.vehicle_id, error)

    def _take_receipt(self, receipt: Receipt) -> None:
        if receipt.vehicle_id != self.identity.vehicle_id:
            raise MalformedMessageError("Receipt", f"it is addressed to {receipt.vehicle_id}")
        with self._state.transaction(may_be_lost=True) as db:  # then it is offered once more
            outbox.free(db, receipt.message_ids)
            for declined in receipt.declined:
                kept.settle(db, declined.message_id)
        self._offers.freed(receipt.message_ids)
        self.statistics.failures_in_a_row += len(receipt.declined)
        if receipt.fresh is not None:
            judged = revision_intake.newest_judged(self._state, self.identity, self.twin)
            self._word.hear(receipt.fresh, self.identity.trusted, judged)
        for declined in receipt.declined:
            log.info("breach_declined message=%s why=%r", declined.message_id, declined.reason)
            if self._local is not None and self._local.is_ended_by(declined.message_id):
                self._run_base("the cloud declined its breach")

    def _run_base(self, why: str) -> None:
        """What the vehicle made for itself gives way to the chain."""
        self.twin = self._base
        if self._local is not None:
            self._local.drop(why)

    def _take_keys(self, payload: bytes) -> None:
        """What was judged under the keys of before stays in force."""
        trusted = key_intake.take_statements(payload, self.identity.trusted, self._state)
        if trusted is not self.identity.trusted:
            self.identity = replace(self.identity, trusted=trusted)
            if self.connected:
                self._publish_status()

    def _take_revision(self, payload: bytes) -> None:
        verdict = revision_intake.consider(payload, self._base, self._state, self.identity)
        if verdict is None:
            return
        if not verdict.applied:
            self._refusals.message(f"{verdict.reason}: {verdict.detail}", payload)
        revision_intake.record(verdict, payload, self._state, self.identity, self._time.now())
        self._note(verdict)
        if verdict.applied:
            self._base = revision_intake.applied(verdict, self.identity, self._base)
            self._run_base(f"revision {self._base.revision} has come")
            if self.connected:
                self._publish_status()

    def _note(self, verdict: Verdict) -> None:
        self.statistics.applied += verdict.applied
        self.statistics.refused += not verdict.applied
        failures = self.statistics.failures_in_a_row
        self.statistics.failures_in_a_row = 0 if verdict.applied else failures + 1
        cause = verdict.revision.cause.message_id if verdict.revision else ""
        kept_at = self._kept_at.pop(cause, None)
        if verdict.applied and kept_at is not None:
            self.statistics.add_latency(self._clock.monotonic() - kept_at)
        log.info(
            "revision_judged vehicle=%s revision=%s verdict=%s detail=%r",
            *(self.identity.vehicle_id, verdict.revision and verdict.revision.number),
            *(verdict.reason or "applied", verdict.detail),
        )
