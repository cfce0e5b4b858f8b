"""Keep vehicles up to date within one process: calibrate what is pending, publish, and again.

What `serve` runs on SQLite. Must never publish what is not committed, and never an older revision
than the newest that stands.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from cloud.calibration.revising import Author
from cloud.calibration.rounds import Calibrations
from cloud.mqtt.protocol import Publisher
from cloud.observability.telemetry import Telemetry
from cloud.push.approved import Approved
from cloud.push.courier import Courier
from cloud.push.releases import Releases
from cloud.roles.turning import Turning
from cloud.rollout.conductor import Rollouts
from cloud.store.database import Store

ORDERS_S: Final = 3.0
"""How often to look for what another process has ordered, however many breaches come."""


class Worker:
    """Run `run()` on a thread of its own; `turn()` does what is due now."""

    def __init__(  # noqa: PLR0913  # what it turns
        self,
        store: Store,
        calibrations: Calibrations,
        publisher: Publisher,
        clock: Callable[[], float],
        author: Author,
        releases: Releases | None = None,
        telemetry: Telemetry | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        self._calibrations, self._releases, self._clock = calibrations, releases, clock
        self._rollouts = rollouts
        self._turning = Turning(self.turn)
        self._ordered = True
        self._lets_begin = False  # a new prior, a breach that brought nothing
        self._looked_at = clock()
        self.wake_for_breaches = self._turning.wake
        self._courier = Courier(
            store, publisher, clock, author, self._turning.wake, releases, telemetry
        )
        self._approved = Approved(store)
        self.keys = self._courier.keys
        self.republish = self._courier.republish
        self.reconnected = self._courier.republish_unanswered

    def wake(self) -> None:
        """Something was ordered, or came that is more than a breach. Any thread."""
        self._ordered = True
        self._turning.wake()

    @property
    def trouble(self) -> str | None:
        """What the last turn failed of; None when it did its work."""
        return self._turning.trouble

    @property
    def is_awake(self) -> bool:
        """Whether there may be something to do."""
        return self._turning.awake.is_set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set and `wake()` called."""
        self._turning.run(stop)

    def turn_if_awake(self) -> bool:
        """One turn, if something may be due; whether it was."""
        if not self.is_awake:
            return False
        self._turning.awake.clear()
        self.turn()
        return True

    def turn(self) -> None:
        """Note what the broker took, publish what was asked, start batteries, calibrate a round."""
        is_ordered = self._may_be_ordered()
        if is_ordered and (approved := self._approved.news()):
            self._courier.republish(approved)
        self._courier.turn()
        if is_ordered:
            self._carry_out()
        began = self._clock()
        outcomes = self._calibrations.round()
        if outcomes:
            self._courier.announce(outcomes, began)
            self._lets_begin |= any(outcome.row is None for outcome in outcomes)
            self._lets_begin |= self._calibrations.learn(outcomes)
            self._turning.wake()
        elif self._lets_begin:
            self._lets_begin = False
            self.wake()

    def _carry_out(self) -> None:
        if self._rollouts is not None and self._rollouts.turn():
            self.wake()
        if self._releases is not None and self._releases.turn():
            self.wake()
        started = self._calibrations.starts()
        self._courier.announce_started(started)
        if started:
            self.wake()

    def _may_be_ordered(self) -> bool:
        """Looking for orders costs more than a calibration: not for every breach."""
        is_due = self._ordered or self._clock() - self._looked_at >= ORDERS_S
        self._ordered = False
        if is_due:
            self._looked_at = self._clock()
        return is_due
