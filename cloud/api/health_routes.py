"""What a supervisor asks: does it live, is it ready, what does it count.

Open to everybody, but for the metrics, which have a switch: `[api] metrics`.

Must never name a vehicle, and never check anything in order to say that the process lives.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client.exposition import choose_encoder

from cloud.api import problems, schemas
from cloud.api.access import Here
from cloud.api.problems import ProblemError, Violation

router = APIRouter(tags=["operation"])


@router.get("/health/live", responses=problems.responses())
@router.get("/healthz", include_in_schema=False)
def alive() -> schemas.Alive:
    """The process lives; nothing else is checked."""
    return schemas.Alive()


@router.get("/health/ready", responses=problems.responses(503))
@router.get("/readyz", include_in_schema=False)
def ready(here: Here) -> schemas.Ready:
    """Whether everything that the service needs answers; 503 names what does not."""
    found = {name: check() for name, check in here.checks.items()}
    failed = {name: problem for name, problem in found.items() if problem is not None}
    if failed:
        detail = "; ".join(f"{name}: {problem}" for name, problem in failed.items())
        violations = [Violation(where=name, problem=problem) for name, problem in failed.items()]
        raise ProblemError(503, detail, violations)
    return schemas.Ready(checks=dict.fromkeys(found, "ok"))


@router.get("/metrics", include_in_schema=False)
def metrics(here: Here, accept: Annotated[str, Header()] = "") -> Response:
    """Every metric, in Prometheus' text format or as OpenMetrics."""
    encode, content_type = choose_encoder(accept)
    return Response(encode(here.metrics.registry), headers={"content-type": content_type})
