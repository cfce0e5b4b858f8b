"""Maintenance and the fleet's health. Must never decide what is due: the service does."""

from __future__ import annotations

from collections.abc import Iterator

from cloud.api import maintenance_schemas as schemas
from cloud.client.ordering import Ordering

V1 = "/api/v1"


class Maintaining(Ordering):
    """Operations on tasks."""

    def list_health(self, **params: object) -> Iterator[schemas.VehicleHealth]:
        """State of health of every vehicle, the lowest first."""
        return self.pages(schemas.VehicleHealth, f"{V1}/health", **params)

    def list_maintenance(self, **params: object) -> Iterator[schemas.TaskItem]:
        """Tasks of all vehicles, the earliest due first."""
        return self.pages(schemas.TaskItem, f"{V1}/maintenance", **params)

    def get_calendar(self, **params: object) -> bytes:
        """Open tasks as iCalendar."""
        return self.send("GET", f"{V1}/maintenance.ics", params=params).content

    def list_vehicle_maintenance(
        self, vehicle_id: str, **params: object
    ) -> Iterator[schemas.TaskItem]:
        """Every task of a vehicle, the newest first."""
        return self.pages(schemas.TaskItem, f"{V1}/vehicles/{vehicle_id}/maintenance", **params)

    def add_task(
        self, vehicle_id: str, told: schemas.NewTask, *, dry_run: bool = False
    ) -> schemas.TaskItem:
        """Schedule something of any kind."""
        path = f"{V1}/vehicles/{vehicle_id}/maintenance"
        return self._write("POST", schemas.TaskItem, path, told, dry_run=dry_run)

    def schedule_task(
        self, task_id: int, told: schemas.Planned, *, dry_run: bool = False
    ) -> schemas.TaskItem:
        """Set the date of an open task."""
        path = f"{V1}/maintenance/{task_id}/schedule"
        return self._write("POST", schemas.TaskItem, path, told, dry_run=dry_run)

    def finish_task(
        self, task_id: int, told: schemas.TaskVerdict, *, dry_run: bool = False
    ) -> schemas.TaskItem:
        """Say that it was done."""
        path = f"{V1}/maintenance/{task_id}/done"
        return self._write("POST", schemas.TaskItem, path, told, dry_run=dry_run)

    def dismiss_task(
        self, task_id: int, told: schemas.TaskVerdict, *, dry_run: bool = False
    ) -> schemas.TaskItem:
        """Say that it is not needed."""
        path = f"{V1}/maintenance/{task_id}/dismiss"
        return self._write("POST", schemas.TaskItem, path, told, dry_run=dry_run)
