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
from functools import partial
from typing import TypeVar

from common.bundle import Bundle
from common.errors import ContractError, MalformedMessageError
from common.messages import Receipt, Status, decode
from common.model import VoltageModel
from common.topics import parse_topic
from common.trust import TrustStore
from edge_agent import __version__
from edge_agent.bundle_update.updater import FLOOR, BundleUpdates
from edge_agent.config import Limits
from edge_agent.config import LocalRecalibration as LocalSettings
from edge_agent.errors import StorageError
from edge_agent.mqtt.link import Accepted, Connected, Disconnected, Event, MqttLink, Received
from edge_agent.mqtt.offers import Offers
from edge_agent.parameters import key_intake, trials
from edge_agent.parameters.cloud_word import CloudWord, trips_since
from edge_agent.parameters.decisions import Identity, Verdict
from edge_agent.parameters.in_force import InForce
from edge_agent.run_statistics import Statistics
from edge_agent.sources import Item
from edge_agent.status_line import StatusLine
from edge_agent.storage import kept, outbox
from edge_agent.storage.refusals import Refusals
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import Clock
from edge_agent.timekeeping.timekeeper import Timekeeper
from edge_agent.trips.driving import PLAIN_TRIPS, Driving, TripRules
from edge_agent.trips.finished_trips import FinishedTrips
from edge_agent.trips.trip_monitor import Twin
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
        identity = Identity(vehicle_id, bundle.sha256, bundle.manifest, trusted)
        self.statistics = Statistics()
        self.connected = False
        self._is_outage_told = False
        self._state, self._link, self._clock = state, link, clock
        self._time = Timekeeper(state, clock)
        self._refusals = Refusals(state, vehicle_id, self._time)
        self._in_force = InForce(
            identity, VoltageModel(bundle), state, self._time, self._refusals, local
        )
        bounds = outbox.Bounds(
            limits.outbox_messages, limits.outbox_bytes, limits.outbox_days * DAY_S
        )
        self._finished = FinishedTrips(state, identity, bounds, self._time)
        self._offers = Offers(limits.receipt_timeout_s)
        self.driving = Driving(
            *(identity, state, limits, rules, self._time, self._refusals),
            statistics=self.statistics,
            twin=lambda: self.twin,
            finished=self._take_trip,
        )
        self._word = CloudWord(state, vehicle_id, partial(secrets.token_hex, 16))
        interval_s = limits.status_interval_s
        self._line = StatusLine(link, self._word, self.status, clock.monotonic, interval_s)
        self.updates: BundleUpdates | None = None  # an agent that replays takes none
        self._kept_at: dict[str, float] = {}
        self._next_offer = 0.0

    @property
    def identity(self) -> Identity:
        """Who the vehicle is, and the keys that it believes now."""
        return self._in_force.identity

    @property
    def twin(self) -> Twin:
        """What the next trip is driven on."""
        return self._in_force.twin

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
        fallen_back = self._in_force.after_trips(saved, self._finished.trial_ends)
        self.statistics.fallen_back += fallen_back
        if fallen_back:
            self._tell_status()
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
        self._state.mend()
        if self._time.poll():
            self._tell_status()
        happened = False
        for _ in range(EVENTS_A_POLL):
            event = self._link.next_event(0.0 if happened else timeout_s)
            if event is None:
                break
            happened = True
            self._handle(event)
        if happened or self._clock.monotonic() >= self._next_offer:
            if self.connected:
                self._line.publish_when_due()
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
            on_trial=self._in_force.base.confirmed is not None,
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
            self._line.say_goodbye()
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

    def _tell_status(self) -> None:
        """Something has changed that the cloud should know; offline, it hears when back."""
        if self.connected:
            self._line.publish()

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
                self._in_force.connected()
                self._is_outage_told = False
                self._offers.reconnected(limits)
                self._line.reconnected()
                if self.updates is not None:
                    self.updates.reconnected()
                self._line.publish()
            case Disconnected(why):
                self._tell_outage(why)
                self._in_force.disconnected()
                self.connected = False
            case Accepted(mid):
                self._line.accepted(mid)
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
                if self._in_force.take_keys(payload):
                    self._tell_status()
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
            judged = self._in_force.newest_judged
            self._word.hear(receipt.fresh, self.identity.trusted, judged)
        for declined in receipt.declined:
            log.info("breach_declined message=%s why=%r", declined.message_id, declined.reason)
            self._in_force.hear_declined(declined)

    def _take_revision(self, payload: bytes) -> None:
        verdict = self._in_force.take_revision(payload)
        if verdict is None:
            return
        self._note(verdict)
        if verdict.applied:
            self._tell_status()

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
