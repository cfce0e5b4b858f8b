"""What an operator may order, and how far each order has come.

Must never make a revision: that is for the worker alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from cloud.api import schemas, views
from cloud.api.access import Here, known_vehicle
from cloud.api.authority import Actor, Operator, Viewer
from cloud.api.operator_schemas import OrderItem
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, not_found, responses
from cloud.api.writing import WRITE_STATUSES, Answer, Once, OnceOnly, named
from cloud.errors import BatteryOrderError, PinError, RecalibrationError, RollBackError
from cloud.store import battery_orders, orders, pins, recalibration_orders, roll_back_orders
from cloud.store.audit_tables import Pin, RecalibrationOrder
from cloud.store.orders import AnyOrder, Found, Kind
from cloud.store.tables import BatteryOrder, RollBackOrder, Vehicle

router = APIRouter(prefix="/api/v1")
VehicleId = Annotated[str | None, Query(max_length=64, description="Of this vehicle alone.")]


@router.post(
    "/vehicles/{vehicle_id}/battery-replaced",
    status_code=202,
    response_model=OrderItem,
    responses=responses(*WRITE_STATUSES),
    tags=["orders"],
)
def battery_replaced(
    here: Here, actor: Operator, once: OnceOnly, vehicle_id: str, told: schemas.BatteryReplaced
) -> Response:
    """Begin anew with a new battery; the same vehicle and odometer again is the same order."""

    def place(db: Session, vehicle: Vehicle) -> AnyOrder:
        wanted = BatteryOrder(
            vehicle_id=vehicle_id,
            odometer=(vehicle.odometer or 0.0) if told.odometer is None else told.odometer,
            ordered_by=named(actor, told.by),
            why=told.why,
            ordered_at=here.clock(),
        )
        return battery_orders.place(db, wanted)

    return _ordered(once, actor, vehicle_id, "battery_replaced", place)


@router.post(
    "/vehicles/{vehicle_id}/roll-back",
    status_code=202,
    response_model=OrderItem,
    responses=responses(*WRITE_STATUSES),
    tags=["orders"],
)
def roll_back(
    here: Here, actor: Operator, once: OnceOnly, vehicle_id: str, told: schemas.RollBack
) -> Response:
    """Send the content of an earlier revision again, as a new one with a higher number."""

    def place(db: Session, _vehicle: Vehicle) -> AnyOrder:
        wanted = RollBackOrder(
            vehicle_id=vehicle_id,
            to_revision=told.to,
            ordered_by=named(actor, told.by),
            why=told.why,
            ordered_at=here.clock(),
        )
        return roll_back_orders.place(db, wanted)

    return _ordered(once, actor, vehicle_id, "roll_back", place)


@router.post(
    "/vehicles/{vehicle_id}/recalibrate",
    status_code=202,
    response_model=OrderItem,
    responses=responses(*WRITE_STATUSES),
    tags=["orders"],
)
def recalibrate(
    here: Here, actor: Operator, once: OnceOnly, vehicle_id: str, told: schemas.Recalibrate
) -> Response:
    """Replay the breaches recorded after a revision: new revisions, a new branch of lineage."""

    def place(db: Session, _vehicle: Vehicle) -> AnyOrder:
        wanted = RecalibrationOrder(
            vehicle_id=vehicle_id,
            from_revision=told.start,
            ordered_by=named(actor, told.by),
            why=told.why,
            ordered_at=here.clock(),
        )
        return recalibration_orders.place(db, wanted)

    return _ordered(once, actor, vehicle_id, "recalibration", place)


@router.post(
    "/vehicles/{vehicle_id}/pin",
    status_code=202,
    response_model=OrderItem,
    responses=responses(*WRITE_STATUSES),
    tags=["orders"],
)
def pin(
    here: Here, actor: Operator, once: OnceOnly, vehicle_id: str, told: schemas.RollBack
) -> Response:
    """Keep the content of a revision: until it is ended breaches bring no revision."""

    def place(db: Session, _vehicle: Vehicle) -> AnyOrder:
        wanted = Pin(
            vehicle_id=vehicle_id,
            to_revision=told.to,
            ordered_by=named(actor, told.by),
            why=told.why,
            ordered_at=here.clock(),
        )
        return pins.place(db, wanted)

    return _ordered(once, actor, vehicle_id, "pin", place)


@router.post(
    "/vehicles/{vehicle_id}/unpin",
    status_code=202,
    response_model=OrderItem,
    responses=responses(*WRITE_STATUSES),
    tags=["orders"],
)
def unpin(
    here: Here, actor: Operator, once: OnceOnly, vehicle_id: str, told: schemas.Unpin
) -> Response:
    """End a pin: the next breach brings a revision again."""

    def place(db: Session, _vehicle: Vehicle) -> AnyOrder:
        return pins.end(db, vehicle_id, named(actor, told.by), told.why, here.clock())

    return _ordered(once, actor, vehicle_id, "pin", place)


@router.get("/orders", response_model=Page[OrderItem], responses=responses(), tags=["orders"])
def list_orders(here: Here, actor: Viewer, paging: Paged, vehicle_id: VehicleId = None) -> Response:
    """What was ordered, of every kind, the latest first."""
    rows = partial(orders.newest, vehicle_id=vehicle_id, cohorts=actor.cohorts)
    listing = Listing(
        tuple[float, str, int], rows, orders.key_of, lambda _db, found: list(map(_item, found))
    )
    return answer(here.store, paging, listing)


@router.get("/orders/{order_id}", responses=responses(404), tags=["orders"])
def get_order(here: Here, actor: Viewer, order_id: str) -> OrderItem:
    """How far an order has come: `waiting`, `done` with its revision, `refused` with the reason."""
    with here.store.read() as db:
        found = orders.by_id(db, order_id)
    if found is None or not actor.may_see(found.cohort):
        raise not_found(f"order {order_id!r}")
    return _item(found)


def _ordered(
    once: Once,
    actor: Actor,
    vehicle_id: str,
    kind: Kind,
    place: Callable[[Session, Vehicle], AnyOrder],
) -> Response:
    """202 and where to look for what becomes of it; 409 where it leads nowhere."""

    def write(db: Session) -> Answer:
        vehicle = known_vehicle(db, actor, vehicle_id)
        try:
            order = place(db, vehicle)
        except (BatteryOrderError, PinError, RecalibrationError, RollBackError) as error:
            raise ProblemError(409, str(error)) from error
        found = Found(kind, order, vehicle.cohort)
        return Answer(_item(found), 202, {"Location": f"/api/v1/orders/{found.id}"})

    return once.write(actor, write)


def _item(found: Found) -> OrderItem:
    order = found.order
    own = {"vehicle_id", "odometer", "to_revision", "from_revision", "ordered_by", "why"}
    own |= {"revision", "problem"}
    return OrderItem(
        id=found.id,
        kind=found.kind,
        state=found.state,
        ordered_at=views.some_utc(order.ordered_at),
        ended_at=views.utc(getattr(order, "ended_at", None)),
        **{"problem": None, **order.model_dump(include=own)},
    )
