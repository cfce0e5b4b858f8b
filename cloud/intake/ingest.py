"""From deliveries to committed facts: one transaction a batch, then receipts, then PUBACKs.

Must never acknowledge what is not committed, and never stop for bad input or a failing disk.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from cloud.bundles import Catalogue
from cloud.errors import StoreUnavailableError, UnstorableMessageError
from cloud.intake.chunks import ChunkServer
from cloud.intake.interpretation import Delivery, Upward, interpret, refused_offer
from cloud.intake.receipts import Acknowledger
from cloud.mqtt.protocol import Inbox, Publisher
from cloud.observability.telemetry import Telemetry
from cloud.store import facts, quarantined
from cloud.store.database import Store
from cloud.store.effects import Effects
from cloud.store.facts import Recorder
from common.errors import ContractError, TransientError
from common.freshness import Freshness, vouch
from common.messages import Breach, Receipt, SignedFreshness, Status, TripSummary, encode
from common.signing import Signer
from common.topics import topic

log = logging.getLogger(__name__)

BATCH: Final = 200
BUSY: Final = 16
"""After a batch of so many the next is waited for: many small transactions cost more than few."""
GATHERING_S: Final = 0.05
GATHERED: Final = 100
"""So long, or for so many: fewer than a broker hands over without an acknowledgement."""
QUIET_S: Final = 0.01
"""Nor longer than this for any one: those who wait for their receipts send nothing meanwhile."""
FIRST_RETRY_S: Final = 0.05
LONGEST_RETRY_S: Final = 5.0
KNOWN_VEHICLES: Final = 200_000
"""So many are remembered to be there, some 20 MB; then it begins anew."""


@dataclass(frozen=True)
class Committed:
    """News for the worker.

    There are new breaches, and first trips of vehicles; these vehicles need their revision again,
    those the statements about keys. Of the vehicles in `waiting` a breach is pending.
    """

    new_breaches: int
    republish: Collection[str]
    newcomers: int = 0
    behind_on_keys: Collection[str] = frozenset()
    waiting: Collection[str] = frozenset()


class Ingest:
    """Run `run()` on a thread of its own; `process` handles one batch."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        publisher: Publisher,
        clock: Callable[[], float],
        committed: Callable[[Committed], None],
        key: Signer,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store, self._catalogue, self._publisher = store, catalogue, publisher
        self._key = key
        self._clock, self._committed = clock, committed
        self._telemetry = telemetry or Telemetry()
        self._acknowledger = Acknowledger(publisher.acknowledge)
        self._known: set[str] = set()  # vehicles
        self._chunks = ChunkServer(store, publisher)

    def run(self, inbox: Inbox, stop: threading.Event) -> None:
        """Handle batches until None comes out of the inbox or `stop` is set."""
        batch: Sequence[Delivery] = ()
        while not stop.is_set():
            is_busy = len(batch) >= BUSY
            batch, is_last = _next_batch(inbox, GATHERING_S if is_busy else 0.0)
            if batch:
                self.process(batch, stop)
            if is_last:
                return

    def process(self, batch: Sequence[Delivery], stop: threading.Event) -> None:
        """Commit a batch and tell everybody; holds it while the database fails, until `stop`."""
        taken_at = self._clock()
        effects = self._commit_patiently(batch, stop)
        if effects is None:
            return  # nothing is acknowledged: the broker has it all
        republish = frozenset(effects.republish)
        behind = frozenset(effects.behind_on_keys)
        waiting = frozenset(effects.waiting)
        news = Committed(effects.new_breaches, republish, effects.newcomers, behind, waiting)
        self._committed(news)
        self._answer(batch, effects)
        self._telemetry.stored(effects, len(batch), taken_at, self._clock())
        for fetch in effects.fetches:
            self._chunks.answer(fetch)

    def _commit_patiently(self, batch: Sequence[Delivery], stop: threading.Event) -> Effects | None:
        delay_s = FIRST_RETRY_S
        while not stop.is_set():
            try:
                with self._telemetry.metrics.commit_seconds.time():
                    effects = self._commit(batch)
            except StoreUnavailableError as error:
                self._telemetry.metrics.commit_failures.inc()
                log.error("batch_not_stored messages=%d error=%r", len(batch), str(error))  # noqa: TRY400
            else:
                # What an attempt before this one stored in part is no news to it.
                effects.new_breaches += delay_s > FIRST_RETRY_S
                return effects
            stop.wait(delay_s)
            delay_s = min(2 * delay_s, LONGEST_RETRY_S)
        return None

    def _commit(self, batch: Sequence[Delivery]) -> Effects:
        """All in one transaction; when one message spoils it, half of them in each of two."""
        try:
            return self._commit_once(batch)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, one message must not stop all
            if len(batch) == 1:
                return self._refuse(batch[0], error)
            log.warning("batch_taken_apart messages=%d error=%r", len(batch), str(error))
        middle = len(batch) // 2
        effects = self._commit(batch[:middle])
        effects.add(self._commit(batch[middle:]))
        return effects

    def _commit_once(self, batch: Sequence[Delivery]) -> Effects:
        now = self._clock()
        interpreted = [self._interpret(delivery) for delivery in batch]
        good = [message for message in interpreted if not isinstance(message, ContractError)]
        with self._store.write() as db:
            recorder = Recorder(db, good, now, self._known)
            for delivery, message in zip(batch, interpreted, strict=True):
                try:
                    if isinstance(message, ContractError):
                        raise message
                    recorder.record(message, retained=delivery.retained)
                except ContractError as error:
                    _log_refusal(delivery, error)
                    facts.refuse(delivery, error, recorder.effects)
            recorder.finish()
        self._remember(good)
        return recorder.effects

    def _remember(self, news: Sequence[Upward]) -> None:
        """These vehicles are there; an answer of one that is not is refused."""
        if len(self._known) > KNOWN_VEHICLES:
            self._known.clear()
        self._known.update(
            m.vehicle_id for m in news if isinstance(m, TripSummary | Breach | Status)
        )

    def _refuse(self, delivery: Delivery, cause: Exception) -> Effects:
        effects, error = Effects(), UnstorableMessageError(cause)
        _log_refusal(delivery, error)
        facts.refuse(delivery, error, effects)
        with self._store.write() as db:
            quarantined.keep(db, effects.refused, self._clock())
        return effects

    def _interpret(self, delivery: Delivery) -> Upward | ContractError:
        try:
            message = interpret(delivery.topic, delivery.payload, self._catalogue)
        except ContractError as error:
            return error
        if isinstance(message, Breach) and self._catalogue.find(message.bundle) is None:
            log.warning(
                "breach_waits vehicle_id=%s message_id=%s bundle=%s: "
                "add that bundle's folder to [bundles] paths",
                message.vehicle_id, message.message_id, message.bundle[:12],
            )  # fmt: skip
        return message

    def _answer(self, batch: Sequence[Delivery], effects: Effects) -> None:
        receipts = list(_receipts(effects, self._key))
        settle = self._acknowledger.add(batch, len(receipts))
        unsent = 0
        for receipt in receipts:
            name = topic(receipt.vehicle_id, "receipt")
            if not self._publisher.publish(name, encode(receipt), partial(settle, True)):  # noqa: FBT003
                settle(False)  # noqa: FBT003
                unsent += 1
        self._telemetry.receipts(len(receipts) - unsent, unsent)


def _receipts(effects: Effects, key: Signer) -> Iterator[Receipt]:
    answered = effects.received.keys() | effects.declined.keys() | effects.asked.keys()
    for vehicle_id in sorted(answered):
        asked = effects.asked.get(vehicle_id)
        yield Receipt(
            vehicle_id=vehicle_id,
            message_ids=effects.received.get(vehicle_id, []),
            declined=effects.declined.get(vehicle_id, []),
            fresh=_vouched(asked, key) if asked else None,
        )


def _vouched(asked: Freshness, key: Signer) -> SignedFreshness | None:
    """Without it the vehicle asks again: a key that is away must not hold back receipts."""
    try:
        return vouch(asked, key)
    except TransientError as error:
        log.error("freshness_not_signed vehicle_id=%s error=%r", asked.vehicle_id, str(error))  # noqa: TRY400
        return None


def _next_batch(inbox: Inbox, gathering_s: float) -> tuple[list[Delivery], bool]:
    """Wait for one delivery, take what else comes until then; True when the end was reached."""
    batch: list[Delivery] = []
    item = inbox.get()
    end = time.monotonic() + gathering_s
    try:
        while item is not None:
            batch.append(item)
            if len(batch) == BATCH:
                return batch, False
            left_s = end - time.monotonic()
            waits = left_s > 0 and len(batch) < GATHERED
            item = inbox.get(timeout=min(left_s, QUIET_S)) if waits else inbox.get_nowait()
    except queue.Empty:
        return batch, False
    return batch, True


def _log_refusal(delivery: Delivery, error: Exception) -> None:
    offered = refused_offer(delivery)
    if offered is None:
        log.warning("message_quarantined topic=%r reason=%r", delivery.topic, str(error))
    else:
        log.warning(
            "message_quarantined vehicle_id=%s kind=%s message_id=%s reason=%r",
            offered.vehicle_id, offered.kind, offered.message_id, str(error),
        )  # fmt: skip
