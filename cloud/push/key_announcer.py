"""Tell vehicles which keys may sign: those that say they know less, and all when that changes.

Must never be turned from two threads; `ask` may be called from any.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from sqlmodel import select

from cloud.errors import KeyOrderError
from cloud.mqtt.protocol import Publisher
from cloud.security.key_orders import keys_now, require_may_sign
from cloud.store import key_statements
from cloud.store.database import Store
from cloud.store.tables import Vehicle
from common.messages import encode
from common.topics import topic

log = logging.getLogger(__name__)


class KeyAnnouncer:
    """`signs` is the id of the service's own key."""

    def __init__(self, store: Store, publisher: Publisher, signs: str) -> None:
        self._store, self._publisher, self._signs = store, publisher, signs
        self.tells_everybody = True
        """Of news; one who does not answers only those that ask."""
        self._lock = threading.Lock()
        self._asked: set[str] = set()
        self._known: int | None = None

    def ask(self, vehicle_ids: Collection[str]) -> None:
        """These vehicles know less than there is."""
        with self._lock:
            self._asked.update(vehicle_ids)

    def turn(self) -> None:
        """Publish what is asked for, or new. Raises StoreUnavailableError."""
        with self._store.read() as db:
            newest = key_statements.newest(db)
        is_new, self._known = self._known not in {None, newest}, newest
        if is_new:
            self._complain_of_own_key()
        with self._lock:
            asked = bool(self._asked)
        everyone = is_new and self.tells_everybody
        if everyone or asked:
            self._publish(everyone=everyone)

    def _publish(self, *, everyone: bool) -> None:
        with self._store.read() as db:
            chain = key_statements.chain(db)
            vehicle_ids = set(db.exec(select(Vehicle.vehicle_id))) if everyone else set()
        with self._lock:
            vehicle_ids |= self._asked
            self._asked = set()
        if chain is None:
            return
        payload = encode(chain)
        for vehicle_id in sorted(vehicle_ids):
            # Without a connection nothing happens: the vehicle's next status asks again.
            self._publisher.publish(topic(vehicle_id, "keys"), payload, _nothing, retain=True)
        log.info("keys_published vehicles=%d statement=%d", len(vehicle_ids), self._known or 0)

    def _complain_of_own_key(self) -> None:
        with self._store.read() as db:
            statements = key_statements.statements(db)
        try:
            require_may_sign(keys_now(statements, {}), self._signs)
        except KeyOrderError as error:
            log.error("own_key_may_not_sign why=%r", error.problem)  # noqa: TRY400 - names the cause


def _nothing() -> None:
    """A vehicle that did not get it asks again."""
