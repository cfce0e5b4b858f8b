"""What every route reads from, and how it finds a vehicle and its estimate.

Must never answer for a vehicle that is not there, or not the caller's to see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Depends, Request
from sqlmodel import Session

from cloud.alerts.sending import Network
from cloud.api import views
from cloud.api.authority import Actor
from cloud.api.gate import CLOSED, Entrance
from cloud.api.problems import not_found
from cloud.bundles import Catalogue
from cloud.observability.metrics import Metrics
from cloud.store import revisions
from cloud.store.database import Store
from cloud.store.tables import RevisionRow, Vehicle
from cloud.traces.archive import Archive

LARGEST_NUMBER: Final = 2**31


@dataclass(frozen=True)
class Context:
    """What the routes work on.

    A check gives None, or what is wrong with what it checks; `wake` tells the worker of an order.
    """

    store: Store
    catalogue: Catalogue
    clock: Callable[[], float]
    checks: Mapping[str, Callable[[], str | None]]
    wake: Callable[[], None] = lambda: None
    metrics: Metrics = field(default_factory=Metrics)
    entrance: Entrance = CLOSED
    webhook_networks: Sequence[Network] = ()
    archive: Archive | None = None


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Here = Annotated[Context, Depends(_context)]


def known_vehicle(db: Session, actor: Actor, vehicle_id: str) -> Vehicle:
    """A vehicle that the caller may see. Raises ProblemError (404), also where it may not."""
    vehicle = db.get(Vehicle, vehicle_id)
    if vehicle is None or not actor.may_see(vehicle.cohort):
        raise not_found(f"vehicle {vehicle_id!r}")
    return vehicle


def require_vehicle(here: Context, actor: Actor, vehicle_id: str) -> None:
    """As `known_vehicle`, before a list below it is read."""
    with here.store.read() as db:
        known_vehicle(db, actor, vehicle_id)


def known_revision(db: Session, vehicle_id: str, number: int) -> RevisionRow:
    """A revision of a vehicle that is known. Raises ProblemError (404)."""
    in_range = 0 < number < LARGEST_NUMBER
    row = revisions.by_number(db, vehicle_id, number) if in_range else None
    if row is None:
        raise not_found(f"revision {number} of vehicle {vehicle_id!r}")
    return row


def required_standing(
    db: Session, vehicle: Vehicle, here: Context, odometer: float | None = None
) -> views.Standing:
    """Its estimate, at its last odometer unless another is given. Raises ProblemError (404)."""
    known = views.standing(db, vehicle, here.catalogue, here.clock(), odometer)
    if known is None:
        raise not_found(f"bundle of vehicle {vehicle.vehicle_id!r} among this service's")
    return known
