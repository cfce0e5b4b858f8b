"""What every role loads and opens before it does anything: bundles, key, database, telemetry.

Must never start anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import cloud
from cloud.alerts.housekeeping import networks_of
from cloud.api.access import Context
from cloud.api.entering import entrance_of
from cloud.bundles import Catalogue, load_catalogue
from cloud.calibration.revising import Author
from cloud.config import Config
from cloud.observability import readiness
from cloud.observability.backlog_metrics import BacklogMetrics
from cloud.observability.telemetry import Telemetry, open_telemetry
from cloud.push.releases import add_stored
from cloud.security.key_orders import keys_now, require_may_sign
from cloud.security.signers import load_signer
from cloud.store import key_statements, revisions
from cloud.store.database import Store
from cloud.traces.archive import archive_of
from common.signing import key_id

Check = Callable[[], str | None]
REFRESH_S: Final = 5.0
TAKEN_OVER: Final = {"ingest", "worker"}
"""Others do the work of these when one stands still, and must not find its rows locked."""


class Parts:
    """Of one process. Raises TwinError: what cannot be used, and why."""

    def __init__(self, config: Config, role: str, clock: Callable[[], float] = time.time) -> None:
        self.config, self.clock = config, clock
        self.catalogue: Catalogue = load_catalogue([config.path(p) for p in config.bundles.paths])
        stands_s = config.worker.deadline_s if role in TAKEN_OVER else None
        self.store = Store(config.database(), stands_s)
        self.archive = archive_of(config)
        self._refreshed_at = float("-inf")
        self.refresh()
        self.telemetry: Telemetry = open_telemetry(config.tracing, role)
        self.metrics = self.telemetry.metrics
        self.metrics.registry.register(BacklogMetrics(self.store, clock))
        self.metrics.watch_pool(self.store.connections())

    @cached_property
    def author(self) -> Author:
        """Who signs; loaded where it is needed, so that the API alone needs no key."""
        author = Author(load_signer(self.config.keys, Path(self.config.base)), cloud.__version__)
        public = author.key.public_key()
        with self.store.write() as db:
            revisions.remember_key(db, key_id(public), public.public_bytes_raw().hex())
        with self.store.read() as db:
            keys = keys_now(key_statements.statements(db), {})
        require_may_sign(keys, key_id(public))
        return author

    def api(self, checks: Mapping[str, Check], wake: Callable[[], None]) -> Context:
        """What the API works on."""
        return Context(
            self.store,
            self.catalogue,
            self.clock,
            checks,
            wake,
            metrics=self.metrics,
            entrance=entrance_of(self.config, self.store, self.clock),
            archive=self.archive,
            webhook_networks=networks_of(self.config),
        )

    def refresh(self) -> None:
        """Know the bundles that another process has announced; looks now and then.

        Raises StoreUnavailableError.
        """
        if time.monotonic() - self._refreshed_at > REFRESH_S:
            add_stored(self.store, self.catalogue)
            self._refreshed_at = time.monotonic()

    def checks(self) -> dict[str, Check]:
        """What every role needs in order to be ready."""
        return {
            "database": partial(readiness.database, self.store),
            "migrations": partial(readiness.migrations, self.store),
        }

    def close(self) -> None:
        """Give everything back."""
        self.store.close()
        self.telemetry.close()
