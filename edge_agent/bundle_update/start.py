"""Choose the bundle that this start runs, and count the starts of one on trial before it is loaded.

Must never fail because of an update: the last resort is the configured bundle, as without one.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.bundle import Bundle, load_bundle
from common.errors import BundleError
from edge_agent.bundle_update import record as records
from edge_agent.bundle_update.folder import UpdateFolder
from edge_agent.bundle_update.record import FACTORY, Record
from edge_agent.config import Config
from edge_agent.storage import kept
from edge_agent.storage.state import State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What was chosen; `state` is open, `factory` the configured bundle's SHA-256 or empty."""

    bundle: Bundle
    state: State
    folder: UpdateFolder
    record: Record
    factory: str


def installed_bundle(config: Config) -> Bundle:
    """The bundle that the agent would run now. Raises BundleError: not even the configured one."""
    folder = UpdateFolder(config.path(config.state), config.vehicle_id)
    return _choose(folder, folder.read(), config.path(config.bundle), 0.0)[0]


def begin(config: Config, unix: Callable[[], float], *, counts: bool) -> Start:
    """Choose, open the state, count. Raises BundleError, and what opening a state raises.

    Without `counts` (a replay) nothing of an update changes.
    """
    folder = UpdateFolder(config.path(config.state), config.vehicle_id)
    factory = config.path(config.bundle)
    record = folder.read()
    while True:
        bundle, record = _choose(folder, record, factory, unix())
        state = State(config.path(config.state), config.vehicle_id, bundle.sha256)
        if counts and _may_swap(record, state):
            state.close()
            record = records.swapped(record, _sha256_of(factory), unix())
            continue
        if not counts or record.current.bundle == FACTORY:
            break
        record = records.started(record)
        if not records.is_crash_loop(record):
            break
        state.close()
        detail = f"{records.STARTS} starts without a trip"
        log.error("bundle_rolled_back bundle=%s why=%r", bundle.sha256[:12], detail)
        record = records.rolled_back(record, "crash_loop", detail, unix())
    try:
        if counts and record != folder.read():
            _write(folder, record)
    except BaseException:
        state.close()
        raise
    return Start(bundle, state, folder, record, _sha256_of(factory))


def _may_swap(record: Record, state: State) -> bool:
    """What is staged runs from this start on, unless a trip of before goes on."""
    is_staged = record.pending is not None and record.pending.is_staged
    try:
        return is_staged and kept.running_trip(state.connection) is None
    except sqlite3.Error:
        return False


def _choose(
    folder: UpdateFolder, record: Record, factory: Path, now: float
) -> tuple[Bundle, Record]:
    """The first of current, previous and factory that is whole."""
    if record.factory and _sha256_of(factory) not in {record.factory, ""}:
        if record.current.bundle != FACTORY:
            log.warning("bundle_replaced_by_hand path=%s: it runs, not the update", factory)
        record = records.replaced_by_hand(record)
    while record.current.bundle != FACTORY:
        try:
            return folder.load(record.current.bundle, factory), record
        except BundleError as error:
            log.error("bundle_damaged bundle=%s why=%r", record.current.bundle[:12], str(error))  # noqa: TRY400
            record = records.rolled_back(record, "damaged", str(error), now)
    return load_bundle(factory), record


def _sha256_of(path: Path) -> str:
    try:
        return load_bundle(path).sha256
    except BundleError:
        return ""


def _write(folder: UpdateFolder, record: Record) -> None:
    """A disk that refuses must not keep the car from measuring; the start is then not counted."""
    try:
        folder.write(record)
    except OSError as error:
        log.error("bundle_start_not_counted why=%r", str(error))  # noqa: TRY400
