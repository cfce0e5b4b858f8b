"""Assemble the operator API: routes, problems, health, metrics, OpenAPI.

Must never open a database or a connection: it is given what it reads from.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware

import cloud
from cloud.api import docs_page, health_routes, key_routes, operating, problems, reading
from cloud.api.access import Context
from cloud.api.authority import VIEWER
from cloud.api.conditional import Conditional
from cloud.api.described import describe, described_only
from cloud.api.gate import Gate
from cloud.api.hardening import Hardening
from cloud.api.measured import Measured
from cloud.api.requests_log import Requests

DESCRIPTION = """What the fleet's twins know: vehicles, trips, revisions with their lineage,
predictions with their 95 % band; state of health, range, forecast and
planned trips with their 95 % interval. One thing can be ordered: to begin anew with a replaced
battery.

Lists are pages: `limit` and `cursor`; `next` (and the `Link` header) lead on. Units stand in the
field names; odometers are in `odometer_unit`. Times are RFC 3339 in UTC. `null` means unknown.
Every list is a file, too: `?format=csv`, `ndjson` or `parquet`, or the `Accept` header; without
`limit` all of it. Answers carry an `ETag` for `If-None-Match`.

Errors are `application/problem+json` (RFC 9457). Unknown query parameters are refused.

All but liveness, readiness and this description needs `Authorization: Bearer` with an API key or a
token of the OIDC issuer. A caller sees the vehicles of its cohorts; others are not there for it."""

_open = APIRouter(tags=["operation"])


def create_app(context: Context) -> FastAPI:
    """The API over `context`."""
    app = FastAPI(
        title="Living twin",
        version=cloud.__version__,
        description=DESCRIPTION,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(described_only)],
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = context
    for router in (*reading.ROUTERS, *operating.ROUTERS, key_routes.router):
        app.include_router(router, dependencies=[VIEWER])  # and each route says what more it needs
    app.include_router(health_routes.router)
    app.include_router(_open)
    app.include_router(docs_page.router)
    describe(app)
    problems.install(app)
    _guard(app)
    app.add_middleware(Measured)
    app.add_middleware(Requests)
    return app


def _guard(app: FastAPI) -> None:
    """The last one added is the first to see a request."""

    def context() -> Context:
        found: Context = app.state.context
        return found

    app.add_middleware(Conditional)
    app.add_middleware(Gate, entrance=lambda: context().entrance)
    if app.state.context is not None and context().entrance.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=context().entrance.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-Match"],
            expose_headers=["ETag", "Link", "RateLimit", "RateLimit-Policy", "Retry-After"],
        )
    app.add_middleware(Hardening, limits=lambda: context().entrance.limits)


@_open.get(f"{problems.PATH}/{{status}}", responses=problems.responses(404))
def explain_problem(status: int) -> dict[str, str]:
    """What the `type` of a problem means."""
    if status not in problems.MEANINGS:
        raise problems.not_found(f"problem {status}")
    return {"status": str(status), "meaning": problems.MEANINGS[status]}
