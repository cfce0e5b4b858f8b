"""Which vehicles get a revision because somebody has approved it: told once to who publishes.

Must never tell of a revision that still waits.
"""

from __future__ import annotations

from cloud.store import approvals
from cloud.store.database import Store


class Approved:
    """What one process has heard of; after a restart it hears of all that is not published."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heard: set[int] = set()

    def news(self) -> set[str]:
        """Vehicles of which it was not told yet. Raises StoreUnavailableError."""
        with self._store.read() as db:
            found = approvals.unpublished(db)
        fresh = {vehicle_id for number, vehicle_id in found.items() if number not in self._heard}
        self._heard = set(found)
        return fresh
