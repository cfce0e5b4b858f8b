"""Who asks: every route takes one of `Viewer`, `Operator`, `Admin`, and knows its caller by it.

The gate (`cloud.api.gate`) has found out who it is before a route is even looked for; here it is
decided whether that is enough. Which vehicles are there for it is each route's own question
(`cloud.api.access.known_vehicle`). Must never let a route be reached without one of the three,
`/healthz` and its like apart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cloud.api.problems import ProblemError
from cloud.security.actors import ROLES, Actor, Role

__all__ = [
    "ROLES",
    "VIEWER",
    "Actor",
    "Admin",
    "Operator",
    "Role",
    "Viewer",
    "require_every_cohort",
]

_BEARER = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="An API key (`twin_…`), or an access token of the configured OIDC issuer.",
)


def require_every_cohort(actor: Actor) -> None:
    """For what no cohort can be told of. Raises ProblemError (403)."""
    if actor.cohorts is not None:
        raise ProblemError(403, f"It is not divided by cohort, and {actor.name} sees but some.")


def _at_least(role: Role) -> Callable[..., Awaitable[Actor]]:
    async def check(
        request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> Actor:
        actor: Actor | None = getattr(request.state, "actor", None)
        if actor is None:  # the gate lets nobody through: this is the second lock on the door
            raise ProblemError(401, "Say who asks.")
        if not actor.has(role):
            raise ProblemError(
                403, f"This needs the role {role}; {actor.name} has the role {actor.role}."
            )
        return actor

    return check


VIEWER = Depends(_at_least("viewer"))
Viewer = Annotated[Actor, VIEWER]
Operator = Annotated[Actor, Depends(_at_least("operator"))]
Admin = Annotated[Actor, Depends(_at_least("admin"))]
