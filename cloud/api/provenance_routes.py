"""The routes that tell a revision's past: its audit, and the lineage of a vehicle's revisions.

Must never write to the database.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Response

from cloud.api.access import Here, known_revision, known_vehicle
from cloud.api.authority import Viewer
from cloud.api.problems import responses
from cloud.api.provenance_schemas import RevisionAudit
from cloud.audit import drawing, lineage, prov, record
from cloud.store import revisions

PROV: Final = "application/json"
SVG: Final = "image/svg+xml"

router = APIRouter(prefix="/api/v1", tags=["revisions"])


@router.get("/vehicles/{vehicle_id}/revisions/{number}/audit", responses=responses(404))
def get_audit(here: Here, actor: Viewer, vehicle_id: str, number: int) -> RevisionAudit:
    """Cause, inputs, who approved it, innovation, every push and verdict of a revision."""
    with here.store.read() as db:
        known_vehicle(db, actor, vehicle_id)
        return record.of_revision(db, known_revision(db, vehicle_id, number))


@router.get(
    "/vehicles/{vehicle_id}/lineage",
    responses={
        **responses(404),
        200: {
            "description": "PROV-JSON, or a picture.",
            "content": {PROV: {"schema": {"type": "object"}}, SVG: {"schema": {"type": "string"}}},
        },
    },
    response_class=Response,
)
def get_lineage(
    here: Here,
    actor: Viewer,
    vehicle_id: str,
    form: Annotated[
        Literal["prov", "svg"], Query(alias="format", description="PROV-JSON, or a picture.")
    ] = "prov",
) -> Response:
    """From which revisions, breaches and priors a vehicle's revisions came; W3C PROV."""
    with here.store.read() as db:
        known_vehicle(db, actor, vehicle_id)
        nodes = lineage.lineage(revisions.all_of(db, vehicle_id))
    if form == "svg":
        return Response(drawing.svg(vehicle_id, nodes), media_type=SVG)
    document = msgspec.json.encode(prov.prov_json(vehicle_id, nodes))
    return Response(document, media_type=PROV)
