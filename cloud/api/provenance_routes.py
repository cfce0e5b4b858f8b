"""The routes that tell a revision's past: its audit, and the lineage of a vehicle's revisions.

Must never write to the database.
"""

from __future__ import annotations

from fastapi import APIRouter

from cloud.api.access import Here, known_revision, known_vehicle
from cloud.api.authority import Viewer
from cloud.api.problems import responses
from cloud.api.provenance_schemas import RevisionAudit
from cloud.audit import record

router = APIRouter(prefix="/api/v1", tags=["revisions"])


@router.get("/vehicles/{vehicle_id}/revisions/{number}/audit", responses=responses(404))
def get_audit(here: Here, actor: Viewer, vehicle_id: str, number: int) -> RevisionAudit:
    """Cause, inputs, who approved it, innovation, every push and verdict of a revision."""
    with here.store.read() as db:
        known_vehicle(db, actor, vehicle_id)
        return record.of_revision(db, known_revision(db, vehicle_id, number))
