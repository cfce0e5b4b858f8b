"""Every router of what operators read, so that the app includes them in one place.

Must never hold a route.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from cloud.api import (
    breach_routes,
    derived_routes,
    event_routes,
    parameter_routes,
    provenance_routes,
    revision_routes,
    routes,
    summary_routes,
    trip_routes,
    what_if_routes,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    routes.router,
    trip_routes.router,
    breach_routes.router,
    revision_routes.router,
    provenance_routes.router,
    parameter_routes.router,
    summary_routes.router,
    event_routes.router,
    derived_routes.router,
    what_if_routes.router,
)
