"""What an operator orders of a vehicle: a battery taken as replaced, a roll-back.

Must never be repeated by itself: see `Transport.send`.
"""

from __future__ import annotations

from cloud.api import schemas
from cloud.client.transport import Transport

V1 = "/api/v1"


class Ordering(Transport):
    """Operations that write."""

    def battery_replaced(
        self, vehicle_id: str, told: schemas.BatteryReplaced
    ) -> schemas.BatteryOrderItem:
        """Begin anew with a new battery."""
        path = f"{V1}/vehicles/{vehicle_id}/battery-replaced"
        return self.post(schemas.BatteryOrderItem, path, told)

    def roll_back(self, vehicle_id: str, told: schemas.RollBack) -> schemas.RollBackItem:
        """Send the content of an earlier revision again."""
        return self.post(schemas.RollBackItem, f"{V1}/vehicles/{vehicle_id}/roll-back", told)
