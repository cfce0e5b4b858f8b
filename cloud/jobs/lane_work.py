"""The work of the lanes that this process holds: their breaches in common rounds, by one thread.

Lanes that are held at the same time share a round, so that a busy worker calibrates many vehicles
in one batch, and an idle one a single breach at once. A lane is left when nothing of it is pending
and the broker has what came of it. Must never touch a lane that is not held.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cloud.calibration.rounds import VEHICLES_AT_ONCE, Calibrations, Outcome
from cloud.errors import OvertakenError
from cloud.push.courier import Courier
from cloud.store.lanes import lane_of

log = logging.getLogger(__name__)

HELD_S: Final = 2.0
"""How long a lane with ever more to do is held before it queues again: others wait, too."""
TAKEN_S: Final = 5.0
"""How long a lane waits for the broker's word; then the next look publishes again."""


@dataclass
class Held:
    """A lane while a job holds it; `left` says whether something of it may still be pending."""

    lane: int
    since: float
    orders: bool = False
    left: Future[bool] = field(default_factory=Future)
    is_drained: bool = False
    open: int = 0
    drained_at: float = 0.0


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
                while not self._stopping and not any(not h.is_drained for h in self._held.values()):
                    self._changed.wait(TAKEN_S if self._held else None)
                    self._leave_settled()
                due = [held for held in self._held.values() if not held.is_drained]
                if self._stopping:
                    self._leave(self._held.copy().values(), is_pending=True)
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
        with self._changed:
            self._leave_settled()

    def _work(self, calibrations: Calibrations, due: list[Held]) -> None:
        for held in due:
            if held.orders:
                held.orders = False
                made = calibrations.starts(held.lane)
                self._count(held, len(made))
                handed = self._courier.announce_started(made, partial(self._taken, held))
                self._count(held, handed - len(made))
        lanes = [held.lane for held in due]
        began = self._clock()
        try:
            outcomes = calibrations.round(lanes)
        except OvertakenError as error:
            log.warning("lanes_overtaken lanes=%r error=%r", lanes, str(error))
            outcomes = []
        by_lane: dict[int, list[Outcome]] = {lane: [] for lane in lanes}
        for outcome in outcomes:
            by_lane[lane_of(outcome.breach.vehicle_id)].append(outcome)
        for held in due:
            self._announce(held, by_lane[held.lane], began)
        self._judge(due, by_lane, is_full=len(outcomes) >= VEHICLES_AT_ONCE)

    def _announce(self, held: Held, outcomes: list[Outcome], began: float) -> None:
        if not outcomes:
            return
        made = sum(outcome.row is not None for outcome in outcomes)
        self._count(held, made)
        handed = self._courier.announce(outcomes, began, partial(self._taken, held))
        self._count(held, handed - made)

    def _judge(self, due: list[Held], by_lane: dict[int, list[Outcome]], *, is_full: bool) -> None:
        """A full round says nothing of the lanes that it has left out."""
        now = time.monotonic()
        with self._changed:
            for held in due:
                if not by_lane[held.lane] and not is_full:
                    held.is_drained, held.drained_at = True, now
            late = [h for h in due if not h.is_drained and now - h.since > HELD_S]
            self._leave(late, is_pending=True)

    def _count(self, held: Held, more: int) -> None:
        with self._changed:
            held.open += more

    def _taken(self, held: Held) -> None:
        with self._changed:
            held.open -= 1
            if held.open == 0:
                self._changed.notify()

    def _leave_settled(self) -> None:
        late = time.monotonic() - TAKEN_S
        settled = [
            held
            for held in self._held.values()
            if held.is_drained and (held.open <= 0 or held.drained_at <= late)
        ]
        self._leave(settled, is_pending=False)

    def _leave(self, lanes: Iterable[Held], *, is_pending: bool) -> None:
        for held in lanes:
            del self._held[held.lane]
            held.left.set_result(is_pending)
