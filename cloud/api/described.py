"""The API's own description: completed here, and what it does not name is refused everywhere.

Must never need a list beside the routes: what a route takes stands in its signature alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel

from cloud.api.export import MEDIA
from cloud.api.problems import MEANINGS, invalid


def describe(app: FastAPI) -> None:
    """Complete what FastAPI describes by what every list has: its formats, and that one may lack.

    Call it when all routes are in; the description is made once, when it is first asked for.
    """
    made = app.openapi

    def completed() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        described = made()
        if is_new:
            for methods in described["paths"].values():
                for operation in methods.values():
                    if _is_list(operation):
                        _add_formats(operation["responses"])
        return described

    app.openapi = completed  # type: ignore[method-assign]


def _is_list(operation: dict[str, Any]) -> bool:
    return any(one["name"] == "format" for one in operation.get("parameters", []))


def _add_formats(answers: dict[str, Any]) -> None:
    text: dict[str, Any] = {"schema": {"type": "string"}}
    binary = {"schema": {"type": "string", "format": "binary"}}
    files = {MEDIA["csv"]: text, MEDIA["ndjson"]: text, MEDIA["parquet"]: binary}
    answers["200"]["content"] |= files
    problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
    answers["406"] = {
        "description": MEANINGS[406],
        "content": {"application/problem+json": problem},
    }


def described_only(request: Request) -> None:
    """Raises ProblemError (422) for a query parameter that is not described."""
    if not request.query_params:
        return
    # Not out of the description, which takes a second to make.
    known = list(dict.fromkeys(_query_names(request.scope["route"].dependant)))
    for name in request.query_params:
        if name not in known:
            names = ", ".join(known) or "none"
            raise invalid(f"query.{name}"[:80], f"unknown parameter; known: {names}")


def _query_names(dependant: Dependant) -> Iterator[str]:
    """What a route takes, and what it depends on takes; a model stands for its fields."""
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from (one.alias or name for name, one in kind.model_fields.items())
        else:
            yield field.alias
    for inner in dependant.dependencies:
        yield from _query_names(inner)
