"""The work of the lanes that this process holds: their breaches in common rounds, by one thread.

Lanes that are held at the same time share a round, so that a busy worker calibrates many vehicles
in one batch, and an idle one a single breach at once. A lane is left when nothing of it is pending.
Must never touch a lane that is not held.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from cloud.calibration.rounds import VEHICLES_AT_ONCE, Calibrations, Outcome
from cloud.errors import OvertakenError
from cloud.push.courier import Courier
from cloud.store.lanes import lane_of

log = logging.getLogger(__name__)

HELD_S: Final = 10.0
"""How long a lane with ever more to do is held before it queues again: others wait, too."""


@dataclass
class Held:
    """A lane while a job holds it; `left` says whether something of it may still be pending."""

    lane: int
    since: float
    orders: bool = False
    left: Future[bool] = field(default_factory=Future)


class LaneWork:
    """`run()` on a thread of its own; `hold` from any thread."""

    def __init__(
        self,
        calibrations: Callable[[], Calibrations],
        courier: Courier,
        clock: Callable[[], float],
    ) -> None:
        self._make_calibrations, self._courier, self._clock = calibrations, courier, clock
        self._changed = threading.Condition()
        self._held: dict[int, Held] = {}
        self._stopping = False
        self.busy_since: float | None = None
        """When the round under way began (monotonic); None between rounds."""

    def hold(self, lane: int, *, orders: bool = False) -> Future[bool]:
        """Do what is pending in a lane; the result says whether something may be left."""
        held = Held(lane, time.monotonic(), orders)
        with self._changed:
            if self._stopping:
                held.left.set_result(True)
            else:
                self._held[lane] = held
                self._changed.notify()
        return held.left

    def stop(self) -> None:
        """Finish the round under way, and leave every lane."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Work until `stop()`; every lane held is left at the end."""
        calibrations = self._make_calibrations()
        while True:
            with self._changed:
                while not self._stopping and not self._held:
                    self._changed.wait()
                due = list(self._held.values())
                if self._stopping:
                    self._leave(due, is_pending=True)
                    return
            self._turn(calibrations, due)

    def _turn(self, calibrations: Calibrations, due: list[Held]) -> None:
        self.busy_since = time.monotonic()
        try:
            self._work(calibrations, due)
        except Exception as error:  # noqa: BLE001  # whoever waits for a lane is told
            with self._changed:
                for held in due:
                    del self._held[held.lane]
            for held in due:
                held.left.set_exception(error)
        finally:
            self.busy_since = None

    def _work(self, calibrations: Calibrations, due: list[Held]) -> None:
        for held in due:
            if held.orders:
                held.orders = False
                self._courier.announce_started(calibrations.starts(held.lane))
        lanes = [held.lane for held in due]
        began = self._clock()
        try:
            outcomes = calibrations.round(lanes)
        except OvertakenError as error:
            log.warning("lanes_overtaken lanes=%r error=%r", lanes, str(error))
            outcomes = []
        self._courier.announce(outcomes, began)
        calibrations.learn(outcomes)
        self._judge(due, outcomes)  # last: what fails before it finds every lane still held

    def _judge(self, due: list[Held], outcomes: list[Outcome]) -> None:
        """A full round says nothing of the lanes that it has left out."""
        is_full = len(outcomes) >= VEHICLES_AT_ONCE
        busy = {lane_of(outcome.breach.vehicle_id) for outcome in outcomes}
        now = time.monotonic()
        drained, late = [], []
        for held in due:
            if not is_full and held.lane not in busy:
                drained.append(held)
            elif now - held.since > HELD_S:
                late.append(held)
        with self._changed:
            self._leave(drained, is_pending=False)
            self._leave(late, is_pending=True)

    def _leave(self, lanes: Iterable[Held], *, is_pending: bool) -> None:
        for held in lanes:
            del self._held[held.lane]
            held.left.set_result(is_pending)
