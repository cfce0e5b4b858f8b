"""Look at every vehicle now and then, and raise and clear its alarms.

Must never write where nothing has changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlmodel import Session

from cloud.alerts.conditions import Cause, Facts, causes
from cloud.policy import DEFAULT, Policy
from cloud.store import alarms, locks, policies
from cloud.store.alert_tables import Alarm
from cloud.store.database import Store

EVERY_S: Final = 30.0
PAGE: Final = 500


class AlarmSweep:
    """`turn()` from one thread; several processes may each have one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next_at = 0.0

    def turn(self, now: float) -> None:
        """Go through all vehicles, if it is time. Raises StoreUnavailableError."""
        if now < self._next_at:
            return
        self._next_at = now + EVERY_S
        last: str | None = ""
        while last is not None:
            last = self._page(last, now)

    def _page(self, after: str, now: float) -> str | None:
        """The next vehicles; where to go on, or None."""
        with self._store.read() as db:
            page, due = _judged(db, after, now)
            is_due = any(alarms.differs(known, found) for _, known, found in due)
        if is_due:
            with self._store.write() as db:
                locks.exclusive(db, "alarm")
                _, due = _judged(db, after, now)  # another process may have been faster
                for facts, known, found in due:
                    alarms.settle(db, facts, known, found, now)
        return page[-1].vehicle_id if len(page) == PAGE else None


def _judged(
    db: Session, after: str, now: float
) -> tuple[Sequence[Facts], list[tuple[Facts, dict[str, Alarm], list[Cause]]]]:
    page = alarms.facts_after(db, after, PAGE)
    known = alarms.of_vehicles(db, [facts.vehicle_id for facts in page])
    holding = policies.holding(db)
    return page, [_judge(facts, known, holding, now) for facts in page]


def _judge(
    facts: Facts, known: Mapping[str, dict[str, Alarm]], holding: Mapping[str, Policy], now: float
) -> tuple[Facts, dict[str, Alarm], list[Cause]]:
    mine = known.get(facts.vehicle_id, {})
    active = {row.type for row in mine.values() if row.active}
    policy = holding.get(facts.cohort, DEFAULT)
    return facts, mine, list(causes(facts, policy, active, now))
