"""What the service knows: vehicles, trips, revisions, quarantine.

Must never change anything on the service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from cloud.api import history_schemas, operator_schemas, provenance_schemas, schemas
from cloud.client.errors import NoSuchListError
from cloud.client.transport import Transport

V1 = "/api/v1"
OF_VEHICLE: Final = ("trips", "breaches", "revisions", "provisionals")
OF_FLEET: Final = ("vehicles", "quarantine", "events", "audit")


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

    def list_breaches(
        self, vehicle_id: str, **params: object
    ) -> Iterator[history_schemas.BreachItem]:
        """Breaches of a vehicle and what became of each, the highest odometer first."""
        path = f"{V1}/vehicles/{vehicle_id}/breaches"
        return self.pages(history_schemas.BreachItem, path, **params)

    def list_revisions(self, vehicle_id: str, **params: object) -> Iterator[schemas.RevisionItem]:
        """Revisions of a vehicle, the newest first."""
        return self.pages(schemas.RevisionItem, f"{V1}/vehicles/{vehicle_id}/revisions", **params)

    def get_revision(self, vehicle_id: str, number: int) -> schemas.RevisionDetail:
        """One revision."""
        path = f"{V1}/vehicles/{vehicle_id}/revisions/{number}"
        return self.get(schemas.RevisionDetail, path)

    def get_audit(self, vehicle_id: str, number: int) -> provenance_schemas.RevisionAudit:
        """What a revision was made from, and what became of it."""
        path = f"{V1}/vehicles/{vehicle_id}/revisions/{number}/audit"
        return self.get(provenance_schemas.RevisionAudit, path)

    def get_lineage(self, vehicle_id: str) -> dict[str, Any]:
        """Where a vehicle's revisions came from, as PROV-JSON."""
        answer = self.send("GET", f"{V1}/vehicles/{vehicle_id}/lineage")
        found: dict[str, Any] = answer.json()
        return found

    def list_provisionals(
        self, vehicle_id: str, **params: object
    ) -> Iterator[schemas.ProvisionalItem]:
        """What a vehicle made for itself while it was cut off."""
        path = f"{V1}/vehicles/{vehicle_id}/provisionals"
        return self.pages(schemas.ProvisionalItem, path, **params)

    def get_trace(self, vehicle_id: str, trip_id: str) -> history_schemas.TripTrace:
        """What was measured on a trip that was a breach, and predicted."""
        path = f"{V1}/vehicles/{vehicle_id}/trips/{trip_id}/trace"
        return self.get(history_schemas.TripTrace, path)

    def compare_revisions(
        self, vehicle_id: str, number: int, other: int
    ) -> history_schemas.RevisionDiff:
        """Two revisions: what changed, and whether it is more than chance."""
        path = f"{V1}/vehicles/{vehicle_id}/revisions/{number}/diff/{other}"
        return self.get(history_schemas.RevisionDiff, path)

    def get_parameter_history(
        self, vehicle_id: str, name: str, **params: object
    ) -> history_schemas.ParameterHistory:
        """A parameter of one vehicle over its revisions."""
        path = f"{V1}/vehicles/{vehicle_id}/parameters/{name}"
        return self.get(history_schemas.ParameterHistory, path, **params)

    def get_fleet_parameter_history(
        self, name: str, **params: object
    ) -> history_schemas.ParameterHistory:
        """A parameter of the vehicles that a list shows first."""
        return self.get(history_schemas.ParameterHistory, f"{V1}/parameters/{name}", **params)

    def get_summary(self, **params: object) -> history_schemas.Summary:
        """The fleet between two times."""
        return self.get(history_schemas.Summary, f"{V1}/summary", **params)

    def list_events(self, **params: object) -> Iterator[operator_schemas.EventItem]:
        """What happened, the latest first."""
        return self.pages(operator_schemas.EventItem, f"{V1}/events", **params)

    def export(self, what: str, vehicle_id: str | None = None, **params: object) -> Iterator[bytes]:
        """A whole list as a file (`format`: csv, ndjson or parquet), piece by piece.

        Raises NoSuchListError.
        """
        if what in OF_VEHICLE and vehicle_id is not None:
            return self.stream(f"{V1}/vehicles/{vehicle_id}/{what}", params=params)
        if what in OF_FLEET and vehicle_id is None:
            return self.stream(f"{V1}/{what}", params=params)
        raise NoSuchListError(what, needs_vehicle=what in OF_VEHICLE)

    def list_quarantine(self, **params: object) -> Iterator[schemas.QuarantineItem]:
        """Messages that were refused, the latest first."""
        return self.pages(schemas.QuarantineItem, f"{V1}/quarantine", **params)

    def explain_problem(self, status: int) -> dict[str, str]:
        """What the `type` of a problem means."""
        found: dict[str, str] = self.send("GET", f"{V1}/problems/{status}").json()
        return found
