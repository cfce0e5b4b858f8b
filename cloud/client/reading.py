"""What the service knows: vehicles, trips, revisions, quarantine.

Must never change anything on the service.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloud.api import schemas
from cloud.client.transport import Transport

V1 = "/api/v1"


class Reading(Transport):
    """Operations that read."""

    def alive(self) -> schemas.Alive:
        """Whether the process lives."""
        return self.get(schemas.Alive, "/health/live")

    def ready(self) -> schemas.Ready:
        """Whether everything that the service needs answers."""
        return self.get(schemas.Ready, "/health/ready")

    def list_vehicles(self, **params: object) -> Iterator[schemas.VehicleSummary]:
        """All vehicles."""
        return self.pages(schemas.VehicleSummary, f"{V1}/vehicles", **params)

    def get_vehicle(self, vehicle_id: str) -> schemas.VehicleDetail:
        """One vehicle."""
        return self.get(schemas.VehicleDetail, f"{V1}/vehicles/{vehicle_id}")

    def list_trips(self, vehicle_id: str, **params: object) -> Iterator[schemas.TripItem]:
        """Trips of a vehicle, the highest odometer first."""
        return self.pages(schemas.TripItem, f"{V1}/vehicles/{vehicle_id}/trips", **params)

    def list_revisions(self, vehicle_id: str, **params: object) -> Iterator[schemas.RevisionItem]:
        """Revisions of a vehicle, the newest first."""
        return self.pages(schemas.RevisionItem, f"{V1}/vehicles/{vehicle_id}/revisions", **params)

    def get_revision(self, vehicle_id: str, number: int) -> schemas.RevisionDetail:
        """One revision."""
        path = f"{V1}/vehicles/{vehicle_id}/revisions/{number}"
        return self.get(schemas.RevisionDetail, path)

    def list_provisionals(
        self, vehicle_id: str, **params: object
    ) -> Iterator[schemas.ProvisionalItem]:
        """What a vehicle made for itself while it was cut off."""
        path = f"{V1}/vehicles/{vehicle_id}/provisionals"
        return self.pages(schemas.ProvisionalItem, path, **params)

    def list_quarantine(self, **params: object) -> Iterator[schemas.QuarantineItem]:
        """Messages that were refused, the latest first."""
        return self.pages(schemas.QuarantineItem, f"{V1}/quarantine", **params)

    def explain_problem(self, status: int) -> dict[str, str]:
        """What the `type` of a problem means."""
        found: dict[str, str] = self.send("GET", f"{V1}/problems/{status}").json()
        return found
