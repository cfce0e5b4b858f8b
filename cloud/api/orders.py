"""What an operator may order: to take a battery as replaced, to roll a vehicle back.

The only routes that write. Must never make a revision: that is for the worker alone.
"""

from __future__ import annotations

from fastapi import APIRouter

from cloud.api import schemas, views
from cloud.api.access import Here, known_vehicle
from cloud.api.authority import Operator
from cloud.api.problems import ProblemError, responses
from cloud.errors import BatteryOrderError, RollBackError
from cloud.store import battery_orders, roll_back_orders
from cloud.store.tables import BatteryOrder, RollBackOrder

router = APIRouter(prefix="/api/v1")


@router.post(
    "/vehicles/{vehicle_id}/battery-replaced",
    status_code=202,
    responses=responses(404, 409),
    tags=["vehicles"],
)
def battery_replaced(
    here: Here, operator: Operator, vehicle_id: str, told: schemas.BatteryReplaced
) -> schemas.BatteryOrderItem:
    """Begin anew with a new battery; the same vehicle and odometer again is the same order."""
    with here.store.write() as db:
        vehicle = known_vehicle(db, operator, vehicle_id)
        try:
            order = battery_orders.place(
                db,
                BatteryOrder(
                    vehicle_id=vehicle_id,
                    odometer=(vehicle.odometer or 0.0) if told.odometer is None else told.odometer,
                    ordered_by=told.by,
                    why=told.why,
                    ordered_at=here.clock(),
                ),
            )
        except BatteryOrderError as error:
            raise ProblemError(409, str(error)) from error
    here.wake()
    return views.battery_order_item(order)


@router.post(
    "/vehicles/{vehicle_id}/roll-back",
    status_code=202,
    responses=responses(404, 409),
    tags=["vehicles"],
)
def roll_back(
    here: Here, operator: Operator, vehicle_id: str, told: schemas.RollBack
) -> schemas.RollBackItem:
    """Send the content of an earlier revision again, as a new one with a higher number."""
    with here.store.write() as db:
        known_vehicle(db, operator, vehicle_id)
        try:
            order = roll_back_orders.place(
                db,
                RollBackOrder(
                    vehicle_id=vehicle_id,
                    to_revision=told.to,
                    ordered_by=told.by,
                    why=told.why,
                    ordered_at=here.clock(),
                ),
            )
        except RollBackError as error:
            raise ProblemError(409, str(error)) from error
    here.wake()
    return views.roll_back_item(order)
