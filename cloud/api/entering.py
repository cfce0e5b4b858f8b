"""From the configuration to how the API is entered, and what an operator is told about it.

Must never open it to more than the configuration says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from cloud.api.gate import METRICS, OPEN, Entrance
from cloud.config import Config
from cloud.security.doors import Doors, KeyDoor
from cloud.security.oidc import TokenDoor
from cloud.security.secret_files import warn_of_readable
from cloud.security.settings import is_loopback
from cloud.store import api_keys
from cloud.store.database import Store

log = logging.getLogger(__name__)


def entrance_of(config: Config, store: Store, clock: Callable[[], float]) -> Entrance:
    """What `[api]` and `[oidc]` say. Raises StoreUnavailableError."""
    api, oidc, tls = config.api, config.oidc, config.mqtt.tls
    if tls is not None and tls.key_file is not None:
        warn_of_readable([Path(tls.key_file)])
    if api.auth == "none":
        log.warning("api_open: [api] auth is none, everybody on this machine is an admin")
        lets = None
    else:
        lets = Doors(KeyDoor(store, clock), TokenDoor(oidc) if oidc else None, clock)
        _tell_of_first_key(config, store)
    if not is_loopback(api.host):
        log.warning("api_without_tls host=%s: put a proxy with TLS before it", api.host)
    return Entrance(
        lets=lets,
        limits=api.limits,
        open_paths=OPEN | {METRICS} if api.metrics == "open" else OPEN,
        cors_origins=tuple(api.cors_origins),
    )


def _tell_of_first_key(config: Config, store: Store) -> None:
    with store.read() as db:
        can_enter = config.oidc is not None or api_keys.is_any(db)
    if not can_enter:
        log.warning("api_has_no_key: make the first one by twin-cloud api-keys create")
