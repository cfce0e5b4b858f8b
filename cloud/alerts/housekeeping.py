"""What is done now and then besides: alarms, webhooks, and events that have grown old.

Webhooks are shared among processes one by one; the rest is done by one of them, while it lives.
Must never stop because one of them fails.
"""

from __future__ import annotations

import ipaddress
import logging
import random
import threading
from collections.abc import Callable
from typing import Final

from cloud.alerts.carrier import Carrier
from cloud.alerts.sending import Network
from cloud.alerts.sweep import AlarmSweep
from cloud.config import Config
from cloud.errors import ConfigError, StoreUnavailableError
from cloud.store import event_pages, leases
from cloud.store.database import Store

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
OLD_EVERY_S: Final = 60.0
DUTY: Final = "housekeeping"
LEASE_S: Final = 60.0
RENEW_S: Final = 20.0


def networks_of(config: Config) -> list[Network]:
    """What `[webhooks] allow` says. Raises ConfigError."""
    try:
        return [ipaddress.ip_network(name) for name in config.webhooks.allow]
    except ValueError as error:
        raise ConfigError(config.base, f"[webhooks] allow: {error}") from error


class Housekeeping:
    """Run `run()` on a thread of its own; several processes may each have one."""

    def __init__(
        self,
        store: Store,
        config: Config,
        clock: Callable[[], float],
        rng: random.Random,
        plan: Callable[[], bool | None] = lambda: None,
    ) -> None:
        """`plan` is the short turn of `cloud.maintenance`."""
        self._store, self._clock, self._plan = store, clock, plan
        self._sweep = AlarmSweep(store)
        self._carrier = Carrier(store, networks_of(config), clock, rng)
        self._old_at = 0.0
        self._name, self._renew_at = f"{rng.getrandbits(64):016x}", 0.0
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """What its last turn failed of; None when it did its work."""
        return "; ".join(self._troubles.values()) or None

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            if not self.turn():
                stop.wait(LOOK_S)
        self._guarded("leaving", self._leave)

    def turn(self) -> bool:
        """Do what is due; whether there may be more at once."""
        is_more = self._guarded("webhooks", self._carrier.turn)
        if self._guarded("lease", self._has_duty):
            self._guarded("alarms", lambda: self._sweep.turn(self._clock()))
            self._guarded("old events", self._delete_old)
            self._guarded("maintenance", self._plan)
        return is_more

    def _has_duty(self) -> bool:
        """Whether this process is the one; it says so again before others would follow it."""
        now = self._clock()
        if now < self._renew_at:
            return True
        with self._store.read() as db:
            is_anothers = leases.holds(db, DUTY, self._name, now) is False
        if is_anothers:
            return False
        with self._store.write() as db:
            is_mine = leases.take(db, DUTY, self._name, now, LEASE_S)
        self._renew_at = now + RENEW_S if is_mine else 0.0
        return is_mine

    def _leave(self) -> None:
        with self._store.write() as db:
            leases.leave(db, DUTY, self._name)

    def _delete_old(self) -> None:
        now = self._clock()
        if now < self._old_at:
            return
        with self._store.write() as db:
            is_more = event_pages.delete_old(db, now) == event_pages.DELETED_AT_ONCE
        self._old_at = now if is_more else now + OLD_EVERY_S

    def _guarded(self, what: str, turn: Callable[[], bool | None]) -> bool:
        try:
            is_true = bool(turn())
        except StoreUnavailableError as error:
            log.warning("housekeeping_waits what=%r error=%r", what, str(error))
            self._troubles[what] = str(error)
        except Exception as error:
            log.exception("housekeeping_failed")
            self._troubles[what] = f"{what}: {error!r}"
        else:
            self._troubles.pop(what, None)
            return is_true
        return False
