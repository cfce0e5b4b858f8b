"""What every route reads from, and how it finds a vehicle and its estimate.

Must never answer for a vehicle that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlmodel import Session

from cloud.api import views
from cloud.api.problems import not_found
from cloud.bundles import Catalogue
from cloud.store.database import Store
from cloud.store.tables import Vehicle


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


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Here = Annotated[Context, Depends(_context)]


def known_vehicle(db: Session, vehicle_id: str) -> Vehicle:
    """A vehicle. Raises ProblemError (404)."""
    vehicle = db.get(Vehicle, vehicle_id)
    if vehicle is None:
        raise not_found(f"vehicle {vehicle_id!r}")
    return vehicle


def required_standing(
    db: Session, vehicle: Vehicle, here: Context, odometer: float | None = None
) -> views.Standing:
    """Its estimate, at its last odometer unless another is given. Raises ProblemError (404)."""
    known = views.standing(db, vehicle, here.catalogue, here.clock(), odometer)
    if known is None:
        raise not_found(f"bundle of vehicle {vehicle.vehicle_id!r} among this service's")
    return known
