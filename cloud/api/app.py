"""Assemble the operator API: routes, problems, health, metrics, OpenAPI.

Must never open a database or a connection: it is given what it reads from.
"""

from __future__ import annotations

from fastapi import Depends, FastAPI

import cloud
from cloud.api import derived_routes, health_routes, operating, problems, routes
from cloud.api.access import Context
from cloud.api.described import described_only
from cloud.api.measured import Measured

DESCRIPTION = """What the fleet's twins know: vehicles, trips, revisions with their lineage,
predictions with their 95 % band; state of health, range, forecast and
planned trips with their 95 % interval. One thing can be ordered: to begin anew with a replaced
battery.

Lists are pages: `limit` and `cursor`; `next` (and the `Link` header) lead on. Units stand in the
field names; odometers are in `odometer_unit`. Times are RFC 3339 in UTC. `null` means unknown.
Errors are `application/problem+json` (RFC 9457). Unknown query parameters are refused."""


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
    for router in operating.ROUTERS:
        app.include_router(router)
    app.include_router(health_routes.router)
    problems.install(app)
    app.add_middleware(Measured)
    return app
