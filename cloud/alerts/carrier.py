"""Carry events to webhooks: deliveries are made, sent in order, and tried again ever less often.

Must never send while a transaction is open, and never two at once to one webhook.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cloud.alerts import sending
from cloud.alerts.sending import SUCCESS, Network
from cloud.errors import WebhookError
from cloud.store import webhooks
from cloud.store.alert_tables import Delivery, Webhook
from cloud.store.database import Store

log = logging.getLogger(__name__)

FIRST_RETRY_S: Final = 5.0
LONGEST_RETRY_S: Final = 3600.0
AT_ONCE: Final = 8
EACH_TURN: Final = 5
"""So many for each webhook in a turn: a lease outlasts them all, each with its time-out."""


def retry_in_s(attempts: int, rng: random.Random) -> float:
    """Doubling from FIRST_RETRY_S to LONGEST_RETRY_S, each anywhere in its upper half."""
    longest = min(FIRST_RETRY_S * 2 ** min(attempts, 20), LONGEST_RETRY_S)
    return rng.uniform(longest / 2, longest)


class Carrier:
    """`turn()` from one thread; several processes may each have one: a webhook is leased."""

    def __init__(
        self,
        store: Store,
        allowed: Sequence[Network],
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._store, self._allowed = store, allowed
        self._clock, self._rng = clock, rng

    def turn(self) -> bool:
        """Make and send what is due; whether there may be more at once.

        Raises StoreUnavailableError.
        """
        with self._store.read() as db:
            if not webhooks.any_free(db, self._clock()):
                return False
        with self._store.write() as db:
            mine = webhooks.lease(db, self._clock())
        if not mine:
            return False
        with ThreadPoolExecutor(min(AT_ONCE, len(mine))) as pool:
            return any(list(pool.map(self._serve, mine)))

    def _serve(self, hook: Webhook) -> bool:
        try:
            with self._store.write() as db:
                is_more = webhooks.fan_out(db, hook, self._clock())
            sent = 0
            while sent < EACH_TURN and self._send_next(hook):
                sent += 1
            return is_more or sent == EACH_TURN
        finally:
            with self._store.write() as db:
                webhooks.release(db, hook)
                webhooks.delete_old(db, self._clock())

    def _send_next(self, hook: Webhook) -> bool:
        """False: nothing is due, or it failed and the rest waits behind it."""
        with self._store.read() as db:
            due = webhooks.next_due(db, hook, self._clock())
        if due is None:
            return False
        status, problem = self._sent(hook, due)
        now = self._clock()
        again_at = now + retry_in_s(due.attempts, self._rng)
        with self._store.write() as db:
            webhooks.note(db, due, status=status, problem=problem, again_at=again_at, now=now)
        return problem is None

    def _sent(self, hook: Webhook, due: Delivery) -> tuple[int | None, str | None]:
        message_id = f"evt_{hook.id}_{due.event_id}"
        try:
            status = sending.post(
                hook.url, hook.secret, message_id, due.body, self._clock(), self._allowed
            )
        except WebhookError as error:
            log.warning("webhook_failed webhook=%s why=%r", hook.id, error.problem)
            return None, error.problem
        if status not in SUCCESS:
            return status, f"it answered {status}"
        return status, None
