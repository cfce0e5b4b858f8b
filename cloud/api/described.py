"""A query parameter that the API's own description does not name is refused, on every route.

Must never need a list beside the routes: what a route takes stands in its signature alone.
"""

from __future__ import annotations

from fastapi import FastAPI, Request

from cloud.api.problems import invalid


def described_only(request: Request) -> None:
    """Raises ProblemError (422) for a query parameter that is not described."""
    if not request.query_params:
        return
    app: FastAPI = request.app
    path: str = request.scope["route"].path
    operation = app.openapi()["paths"].get(path, {}).get(request.method.lower(), {})
    described = operation.get("parameters", [])
    known = [one["name"] for one in described if one["in"] == "query"]
    for name in request.query_params:
        if name not in known:
            names = ", ".join(known) or "none"
            raise invalid(f"query.{name}"[:80], f"unknown parameter; known: {names}")
