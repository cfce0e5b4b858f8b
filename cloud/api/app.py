"""Assemble the operator API: routes, problems, liveness and readiness, OpenAPI.

Must never open a database or a connection: it is given what it reads from.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Request

import cloud
from cloud.api import derived_routes, orders, problems, routes, schemas
from cloud.api.access import Context
from cloud.api.described import described_only
from cloud.api.problems import ProblemError, Violation

DESCRIPTION = """What the fleet's twins know: vehicles, trips, revisions with their lineage,
predictions with their 95 % band; state of health, range, forecast and
planned trips with their 95 % interval. One thing can be ordered: to begin anew with a replaced
battery.

Lists are pages: `limit` and `cursor`; `next` (and the `Link` header) lead on. Units stand in the
field names; odometers are in `odometer_unit`. Times are RFC 3339 in UTC. `null` means unknown.
Errors are `application/problem+json` (RFC 9457). Unknown query parameters are refused."""

_operation = APIRouter(tags=["operation"])


def create_app(context: Context) -> FastAPI:
    """The API over `context`."""
    app = FastAPI(
        title="Living twin",
        version=cloud.__version__,
        description=DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url="/api/v1/docs",
        redoc_url=None,
        dependencies=[Depends(described_only)],
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = context
    app.include_router(routes.router)
    app.include_router(derived_routes.router)
    app.include_router(orders.router)
    app.include_router(_operation)
    problems.install(app)
    return app


@_operation.get("/healthz", responses=problems.responses())
def alive() -> schemas.Alive:
    """The process lives; nothing else is checked."""
    return schemas.Alive()


@_operation.get("/readyz", responses=problems.responses(503))
def ready(request: Request) -> schemas.Ready:
    """Whether everything that the service needs answers; 503 names what does not."""
    context: Context = request.app.state.context
    found = {name: check() for name, check in context.checks.items()}
    failed = {name: problem for name, problem in found.items() if problem is not None}
    if failed:
        detail = "; ".join(f"{name}: {problem}" for name, problem in failed.items())
        violations = [Violation(where=name, problem=problem) for name, problem in failed.items()]
        raise ProblemError(503, detail, violations)
    return schemas.Ready(checks=dict.fromkeys(found, "ok"))
