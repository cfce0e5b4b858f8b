"""Keep a fleet prior for each bundle: learn one as soon as the fleet allows it, and better ones.

Must never learn from a revision that is no evidence: one that was itself made from a prior.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from sqlmodel import Session

from cloud.bundles import Catalogue
from cloud.errors import FleetPriorError, StoreUnavailableError
from cloud.store import fleet_priors, locks
from cloud.store.database import Store
from cloud.store.new_revisions import NewRevision
from cloud.store.tables import FleetPriorRow, RevisionRow
from common.calibration import Estimate, estimate_of
from common.errors import ContractError, TooFewVehiclesError
from common.fleet_learning import MIN_VEHICLES, History, learn
from common.fleet_prior import FleetPrior, decode_prior, encode_prior, prior_hash
from common.manifest import Manifest
from common.revision import decode_revision

log = logging.getLogger(__name__)

GROWN: Final = 2
"""A fleet that is so many times as large teaches anew."""
NEW_SHARE: Final = 0.05
"""A battery first seen before this share of its known age was seen from new."""


def make(db: Session, bundle: str, manifest: Manifest, now: float) -> FleetPriorRow:
    """The next version of a bundle's prior, not added yet. Raises TooFewVehiclesError."""
    version = fleet_priors.newest_version(db, bundle) + 1
    histories = _histories(db, bundle)
    prior = learn(histories, manifest, bundle=bundle, version=version, made_at=now)
    size = fleet_priors.fleet(db, bundle)
    content = encode_prior(prior)
    return FleetPriorRow(
        bundle=bundle,
        version=version,
        content=content,
        hash=prior_hash(content),
        made_at=now,
        fleet_vehicles=size.vehicles,
        fleet_revisions=size.revisions,
    )


def read(row: FleetPriorRow) -> FleetPrior:
    """What a row holds. Raises FleetPriorError: somebody edited it."""
    if prior_hash(row.content) != row.hash:
        raise FleetPriorError(row.bundle, row.version, "its content does not have its hash")
    try:
        return decode_prior(row.content)
    except ContractError as error:
        raise FleetPriorError(row.bundle, row.version, str(error)) from error


class FleetPriors:
    """The newest prior of each bundle, for one thread."""

    def __init__(self, store: Store, catalogue: Catalogue, clock: Callable[[], float]) -> None:
        self._store, self._catalogue, self._clock = store, catalogue, clock
        self._known: dict[str, tuple[int, FleetPrior | None]] = {}  # as of a version
        self._missing: dict[str, int] = {}  # revisions until a fleet can have grown enough

    def newest(self, db: Session, bundle: str) -> FleetPrior | None:
        """The newest prior of a bundle that can be read; also one that another process has made."""
        version = fleet_priors.newest_version(db, bundle)
        known_version, known = self._known.get(bundle, (0, None))
        if version != known_version:
            known = _readable(db, bundle, version)
            self._known[bundle] = version, known
        return known

    def grow(self, made: Iterable[NewRevision]) -> bool:
        """After these revisions: learn the priors that are due; whether any was.

        Raises StoreUnavailableError.

        A revision brings a fleet at most one vehicle nearer to what is due, so that nothing is
        asked until enough have come.
        """
        for row in made:
            self._missing[row.bundle] = self._missing.get(row.bundle, 1) - 1
        due = [bundle for bundle, missing in self._missing.items() if missing <= 0]
        grown = [self._grown(bundle) for bundle in due]
        return any(grown)

    def _grown(self, bundle: str) -> bool:
        """Learn a prior if it is due, and note how many revisions on to ask again."""
        with self._store.read() as db:
            size = fleet_priors.fleet(db, bundle)
            row = fleet_priors.by_version(db, bundle, fleet_priors.newest_version(db, bundle))
        vehicles = GROWN * row.fleet_vehicles if row else MIN_VEHICLES
        revisions = GROWN * row.fleet_revisions if row else 0
        missing = vehicles - size.vehicles
        if row:
            missing = min(missing, revisions - size.revisions)
        is_due = missing <= 0
        if is_due:
            self._learn(bundle, row.version if row else 0)
        self._missing[bundle] = max(size.vehicles, 1) if is_due else missing
        return is_due

    def _learn(self, bundle: str, newest: int) -> None:
        """A fleet that teaches nothing keeps nobody from a revision."""
        manifest = self._catalogue.manifest(bundle)
        try:
            with self._store.write() as db:
                locks.exclusive(db, f"fleet_prior {bundle}")
                if fleet_priors.newest_version(db, bundle) != newest:
                    return  # another worker was faster
                row = make(db, bundle, manifest, self._clock())
                db.add(row)
        except StoreUnavailableError:
            raise
        except TooFewVehiclesError as error:
            log.info("fleet_prior_waits bundle=%s why=%r", bundle[:12], str(error))
        except Exception:
            log.exception("fleet_prior_failed bundle=%s", bundle)
        else:
            log.info("fleet_prior_made bundle=%s version=%d", bundle[:12], row.version)


def _readable(db: Session, bundle: str, version: int) -> FleetPrior | None:
    """That version, or the one before it: what somebody edited must not stop the calibrations."""
    for candidate in range(version, 0, -1):
        row = fleet_priors.by_version(db, bundle, candidate)
        try:
            if row is not None:
                return read(row)
        except FleetPriorError as error:
            log.error("fleet_prior_unreadable reason=%r", str(error))  # noqa: TRY400
    return None


def _histories(db: Session, bundle: str) -> list[History]:
    found = []
    standing = list(fleet_priors.standing_revisions(db, bundle))
    firsts = fleet_priors.first_trips(db, [vehicle_id for vehicle_id, _ in standing])
    for vehicle_id, rows in standing:
        first = firsts.get(vehicle_id)
        seen_from = first.odometer_start if first else None
        for battery in _batteries(rows):
            history = _history(battery, bundle, seen_from)
            if history.estimates:
                found.append(history)
    return found


def _batteries(rows: Sequence[RevisionRow]) -> list[list[RevisionRow]]:
    """The revisions of each battery; a replacement begins the next."""
    batteries: list[list[RevisionRow]] = [[]]
    for row in rows:
        if row.kind == "replacement":
            batteries.append([])
        batteries[-1].append(row)
    return batteries


def _history(rows: Sequence[RevisionRow], bundle: str, seen_from: float | None) -> History:
    is_replaced = bool(rows) and rows[0].kind == "replacement"
    begin = rows[0].odometer if is_replaced else 0.0
    estimates: list[Estimate] = []
    for row in rows:
        if row.kind == "breach" and row.bundle == bundle:
            known = estimate_of(decode_revision(row.content))
            estimates.append(replace(known, odometer=row.odometer - begin))
    newest = estimates[-1].odometer if estimates else 0.0
    is_from_new = is_replaced or (seen_from is not None and seen_from <= NEW_SHARE * newest)
    return History(estimates, is_from_new)
