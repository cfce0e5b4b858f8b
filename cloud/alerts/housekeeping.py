"""What is done now and then besides: alarms, webhooks, and events that have grown old.

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
from cloud.store import event_pages
from cloud.store.database import Store

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
OLD_EVERY_S: Final = 60.0


def networks_of(config: Config) -> list[Network]:
    """What `[webhooks] allow` says. Raises ConfigError."""
    try:
        return [ipaddress.ip_network(name) for name in config.webhooks.allow]
    except ValueError as error:
        raise ConfigError(config.base, f"[webhooks] allow: {error}") from error


class Housekeeping:
    """Run `run()` on a thread of its own; several processes may each have one."""

    def __init__(
        self, store: Store, config: Config, clock: Callable[[], float], rng: random.Random
    ) -> None:
        self._store, self._clock = store, clock
        self._sweep = AlarmSweep(store)
        self._carrier = Carrier(store, networks_of(config), clock, rng)
        self._old_at = 0.0

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set."""
        while not stop.is_set():
            is_more = self._guarded(self._carrier.turn)
            self._guarded(lambda: self._sweep.turn(self._clock()))
            self._guarded(self._delete_old)
            if not is_more:
                stop.wait(LOOK_S)

    def _delete_old(self) -> None:
        now = self._clock()
        if now < self._old_at:
            return
        with self._store.write() as db:
            is_more = event_pages.delete_old(db, now) == event_pages.DELETED_AT_ONCE
        self._old_at = now if is_more else now + OLD_EVERY_S

    @staticmethod
    def _guarded(turn: Callable[[], bool | None]) -> bool:
        try:
            return bool(turn())
        except StoreUnavailableError as error:
            log.warning("housekeeping_waits error=%r", str(error))
        except Exception:
            log.exception("housekeeping_failed")
        return False
