"""Errors of the API as application/problem+json (RFC 9457).

Must never tell a client what only the log may know.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from cloud.api.requests_log import HEADER, known_trace_id
from cloud.errors import StoreUnavailableError, TraceArchiveError

log = logging.getLogger(__name__)

PATH: Final = "/api/v1/problems"
MEANINGS: Final = {
    401: "Say who asks: `Authorization: Bearer` with an API key or a token of the issuer.",
    403: "Who asks is known, and may not do this.",
    404: "Nothing is known under this address.",
    405: "The address does not take this method.",
    406: "The list cannot be given in a format that `Accept` takes.",
    409: "What is asked for contradicts what is known; the detail says what.",
    410: "It was kept for a time, which is over; the detail says until when.",
    412: "It has changed since it was read: read it again.",
    413: "The body of the request is larger than the service takes.",
    422: "A parameter or a field of the request is unknown, missing or out of range.",
    428: "A change needs If-Match with the ETag of what was read.",
    429: "Too many requests; `Retry-After` says in how many seconds to come again.",
    500: "The service failed; its log says why.",
    503: "Something that the service needs does not answer.",
}


_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="twin-cloud"'}
_EVERYWHERE: Final = (401, 403, 413, 422, 429, 500, 503)


class Violation(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(examples=["query.limit"])
    problem: str = Field(examples=["Input should be less than or equal to 500"])


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str = Field(examples=[f"{PATH}/404"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no vehicle 'car-7'."])
    instance: str = Field(examples=["/api/v1/vehicles/car-7"])
    violations: list[Violation] = []
    trace_id: str | None = Field(
        default=None,
        description="Of the request; the service's log has it, and `X-Request-Id`.",
        examples=["4bf92f3577b34da6a3ce929d0e0e4736"],
    )


class ProblemError(Exception):
    """Raised by a route: answered with this status and sentence."""

    def __init__(self, status: int, detail: str, violations: list[Violation] | None = None) -> None:
        self.status, self.detail = status, detail
        self.violations = violations or []
        super().__init__(detail)


def not_found(what: str) -> ProblemError:
    """404 for something that is not in the database."""
    return ProblemError(404, f"There is no {what}.")


def invalid(where: str, problem: str) -> ProblemError:
    """422 for one parameter or field."""
    return ProblemError(422, f"{where}: {problem}", [Violation(where=where, problem=problem)])


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems that a route declares in OpenAPI."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {
            "model": Problem,
            "description": MEANINGS[status],
            "content": {"application/problem+json": schema},
        }
        for status in sorted({*statuses, *_EVERYWHERE})
    }


def install(app: FastAPI) -> None:
    """Answer every error of `app` as a problem."""

    @app.exception_handler(ProblemError)
    def _problem(request: Request, error: ProblemError) -> JSONResponse:
        return response(request, error.status, error.detail, error.violations)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        answer = response(request, error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    def _validation(request: Request, error: RequestValidationError) -> JSONResponse:
        violations = [
            Violation(where=".".join(str(part) for part in item["loc"]), problem=item["msg"])
            for item in error.errors()
        ]
        detail = "; ".join(f"{item.where}: {item.problem}" for item in violations)
        return response(request, 422, detail, violations)

    @app.exception_handler(StoreUnavailableError)
    def _store(request: Request, error: StoreUnavailableError) -> JSONResponse:
        known = known_trace_id(request)
        log.error("api_failed path=%s error=%r trace_id=%s", request.url.path, str(error), known)
        return response(request, 503, "The database does not answer.")

    @app.exception_handler(TraceArchiveError)
    def _archive(request: Request, error: TraceArchiveError) -> JSONResponse:
        known = known_trace_id(request)
        log.error("api_failed path=%s error=%r trace_id=%s", request.url.path, str(error), known)
        return response(request, 503, "The archive of traces does not answer.")

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error(
            "api_failed path=%s error=%r trace_id=%s",
            request.url.path,
            str(error),
            known_trace_id(request),
            exc_info=error,
        )
        return response(request, 500, MEANINGS[500])


def response(
    request: Request, status: int, detail: str, violations: list[Violation] | None = None
) -> JSONResponse:
    """An error as a problem; who has not shown who it is, is told how (RFC 6750)."""
    trace_id = known_trace_id(request)
    problem = Problem(
        type=f"{PATH}/{status}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        violations=violations or [],
        trace_id=trace_id,
    )
    headers = dict(_CHALLENGE) if status == HTTPStatus.UNAUTHORIZED else {}
    if trace_id is not None:
        headers[HEADER] = trace_id  # a 500 is answered outside of what names every other answer
    return JSONResponse(
        problem.model_dump(exclude_none=True),
        status_code=status,
        headers=headers,
        media_type="application/problem+json",
    )
