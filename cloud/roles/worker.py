"""Keep vehicles up to date: calibrate what is pending, publish what comes of it, and again.

Sleeps until it is woken, or for LOOK_S. Must never publish what is not committed, and never an
older revision than the newest that stands.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Final

from cloud.calibration.revising import Author
from cloud.calibration.rounds import Calibrations, Outcome
from cloud.errors import StoreUnavailableError
from cloud.mqtt.protocol import Publisher
from cloud.observability.telemetry import Telemetry
from cloud.push.announcer import Announcer
from cloud.push.key_announcer import KeyAnnouncer
from cloud.push.releases import Releases
from cloud.store import revisions
from cloud.store.database import Store
from common.signing import key_id

log = logging.getLogger(__name__)

RETRY_S: Final = 0.5
LOOK_S: Final = 10.0
"""How often to look without being woken: another process may have ordered something."""


class Worker:
    """Run `run()` on a thread of its own; `turn()` does what is due now."""

    def __init__(
        self,
        store: Store,
        calibrations: Calibrations,
        publisher: Publisher,
        clock: Callable[[], float],
        author: Author,
        releases: Releases | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._store, self._calibrations, self._clock = store, calibrations, clock
        self._awake = threading.Event()
        self._lock = threading.Lock()
        self._republish: set[str] = set()
        self._republish_all = False
        self.trouble: str | None = None
        """What the last turn failed of; None when it did its work."""
        self._announcer = Announcer(publisher, self.wake, author)
        self.keys = KeyAnnouncer(store, publisher, key_id(author.key.public_key()))
        self._releases = releases
        self._telemetry = telemetry or Telemetry()
        self.wake()

    def wake(self) -> None:
        """There is something to do. Any thread."""
        self._awake.set()

    def republish(self, vehicle_ids: Collection[str]) -> None:
        """Publish the newest revision of these vehicles again. Any thread."""
        with self._lock:
            self._republish.update(vehicle_ids)
        self.wake()

    def reconnected(self) -> None:
        """Publish again whatever the broker may have lost. Any thread."""
        with self._lock:
            self._republish_all = True
        self.wake()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set and `wake()` called."""
        while True:
            self._awake.wait(LOOK_S)
            self._awake.clear()
            if stop.is_set():
                return
            try:
                self.turn()
            except StoreUnavailableError as error:
                log.error("worker_waits error=%r", str(error))  # noqa: TRY400  # it names the cause
                self.trouble = str(error)
            except Exception as error:
                log.exception("worker_failed")
                self.trouble = f"its last turn failed ({error!r})"
            else:
                self.trouble = None
                continue
            stop.wait(RETRY_S)
            self.wake()

    def turn(self) -> None:
        """Note what the broker took, publish what was asked, start batteries, calibrate a round."""
        self._note_confirmed()
        self.keys.turn()
        self._publish_again()
        if self._releases is not None and self._releases.turn():
            self.wake()
        started = self._calibrations.starts()
        for row in started:
            self._announcer.revision(row, self._telemetry.pushed_again)
            log.info(
                "revision_without_breach vehicle_id=%s revision=%d cause=%s",
                row.vehicle_id, row.number, row.kind,
            )  # fmt: skip
        began = self._clock()
        outcomes = self._calibrations.round()
        if started:
            self.wake()
        if outcomes:
            self._announce(outcomes)
            self._telemetry.settled(outcomes, began)
            self.wake()

    def _note_confirmed(self) -> None:
        confirmed = self._announcer.confirmed()
        if confirmed:
            with self._store.write() as db:
                revisions.mark_published(db, confirmed.revisions, self._clock())
                revisions.mark_heard(db, confirmed.declined, self._clock())

    def _publish_again(self) -> None:
        with self._lock:
            vehicle_ids, self._republish = self._republish, set()
            everything, self._republish_all = self._republish_all, False
        try:
            if vehicle_ids:
                self._publish_newest(vehicle_ids)
            if everything:
                self._publish_unanswered()
            if self._releases is not None and (vehicle_ids or everything):
                self._releases.publish_again(None if everything else vehicle_ids)
        except StoreUnavailableError:
            with self._lock:
                self._republish |= vehicle_ids
                self._republish_all |= everything
            raise

    def _publish_newest(self, vehicle_ids: Collection[str]) -> None:
        with self._store.read() as db:
            rows = [revisions.newest_for(db, vehicle_id) for vehicle_id in vehicle_ids]
        for row in rows:
            if row is not None:
                log.info(
                    "revision_published_again vehicle_id=%s revision=%d", row.vehicle_id, row.number
                )
                self._announcer.revision(row, self._telemetry.pushed_again)

    def _publish_unanswered(self) -> None:
        with self._store.read() as db:
            rows, declined = revisions.unanswered(db), revisions.unheard(db)
        for row in rows:
            self._announcer.revision(row, self._telemetry.pushed_again)
        self._announcer.declined(declined)

    def _announce(self, outcomes: Sequence[Outcome]) -> None:
        """First everything goes out, then the log is written."""
        asked_at = self._clock()
        for outcome in outcomes:
            if outcome.row is not None:
                self._announcer.revision(outcome.row, self._told_of([outcome], asked_at))
        refused = {o.breach.id: o for o in outcomes if o.row is None}
        self._announcer.declined(
            (o.breach for o in refused.values()),
            lambda breaches: self._told_of([refused[breach.id] for breach in breaches], asked_at)(),
        )
        for outcome in outcomes:
            _log_outcome(outcome)

    def _told_of(self, outcomes: Sequence[Outcome], asked_at: float) -> Callable[[], None]:
        def told() -> None:
            now = self._clock()
            for outcome in outcomes:
                self._telemetry.pushed(outcome, asked_at, now)

        return told


def _log_outcome(outcome: Outcome) -> None:
    breach, row = outcome.breach, outcome.row
    log.info(
        "breach_settled vehicle_id=%s message_id=%s revision=%s reason=%r",
        breach.vehicle_id, breach.message_id, row.number if row else None, breach.reason,
    )  # fmt: skip
