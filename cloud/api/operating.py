"""Every router of what operators do, so that the app includes them in one place.

Must never hold a route.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter

from cloud.api import (
    alarms,
    approvals,
    audit,
    bundle_routes,
    cohorts,
    fleet_health,
    live,
    maintenance,
    orders,
    policies,
    retries,
    rollout_routes,
    webhooks,
)

ROUTERS: Final[tuple[APIRouter, ...]] = (
    orders.router,
    cohorts.router,
    policies.router,
    approvals.router,
    alarms.router,
    webhooks.router,
    audit.router,
    live.router,
    maintenance.router,
    fleet_health.router,
    retries.router,
    bundle_routes.router,
    rollout_routes.router,
)
