"""One request to the API and its answer: the key, retries, problems as exceptions, pages.

Must never repeat a request that may have changed something, unless the server says that it did not
take it (429) or the request carries an idempotency key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel

from cloud.client.errors import ServiceUnreachableError, error_of

M = TypeVar("M", bound=BaseModel)
Params = Mapping[str, object]

ATTEMPTS: Final = 5
LONGEST_WAIT_S: Final = 60.0
FIRST_WAIT_S: Final = 0.5
TIMEOUT_S: Final = 60.0
SAFE: Final = {"GET", "HEAD", "PUT", "DELETE"}
TOO_MANY, UNAVAILABLE, FIRST_ERROR = 429, 503, 400


class Transport:
    """What every operation goes through. Thread-safe as httpx.Client is."""

    def __init__(
        self,
        base_url: str,
        key: str | None = None,
        *,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`key` is an API key or a bearer token; `http` replaces the client's own connection."""
        self.base_url = base_url.rstrip("/")
        self._http = http or httpx.Client(timeout=TIMEOUT_S)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """One answer below 400. Raises ProblemAnswerError, ServiceUnreachableError."""
        request = self._request(method, path, params, body, headers or {})
        may_repeat = method in SAFE or "Idempotency-Key" in request.headers
        for attempt in range(ATTEMPTS):
            response = self._once(request)
            busy = response.status_code == TOO_MANY or (
                may_repeat and response.status_code == UNAVAILABLE
            )
            if not busy or attempt == ATTEMPTS - 1:
                break
            self._sleep(_wait_s(response, attempt))
        return _checked(response)

    def stream(
        self, path: str, *, params: Params | None = None, accept: str = "*/*"
    ) -> Iterator[bytes]:
        """The bytes of an answer as they come. Raises as `send`."""
        request = self._request("GET", path, params, None, {"Accept": accept})
        try:
            response = self._http.send(request, stream=True)
            try:
                if response.status_code >= FIRST_ERROR:
                    response.read()
                yield from _checked(response).iter_bytes()
            finally:
                response.close()
        except httpx.TransportError as error:
            raise ServiceUnreachableError(self.base_url, error) from error

    def get(self, kind: type[M], path: str, **params: object) -> M:
        """One resource."""
        return kind.model_validate_json(self.send("GET", path, params=params).content)

    def post(self, kind: type[M], path: str, body: BaseModel, **headers: str) -> M:
        """What the service answers to a body."""
        sent = body.model_dump(mode="json", exclude_none=True)
        return kind.model_validate_json(self.send("POST", path, body=sent, headers=headers).content)

    def pages(self, kind: type[M], path: str, **params: object) -> Iterator[M]:
        """Every item of a list, page after page, as they are needed."""
        cursor: str | None = None
        while True:
            asked = {**params, "cursor": cursor if cursor is not None else params.get("cursor")}
            page = self.send("GET", path, params=asked).json()
            yield from (kind.model_validate(item) for item in page["items"])
            cursor = page["next"]
            if cursor is None:
                return

    def _request(
        self,
        method: str,
        path: str,
        params: Params | None,
        body: object,
        headers: Mapping[str, str],
    ) -> httpx.Request:
        return self._http.build_request(
            method,
            self.base_url + path,
            params=_query(params or {}),
            json=body,
            headers={**self._headers, **headers},
        )

    def _once(self, request: httpx.Request) -> httpx.Response:
        try:
            return self._http.send(request)
        except httpx.TransportError as error:
            raise ServiceUnreachableError(self.base_url, error) from error


def _query(params: Params) -> dict[str, Any]:
    """What is None is not asked for."""
    return {name: _word(value) for name, value in params.items() if value is not None}


def _word(value: object) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _wait_s(response: httpx.Response, attempt: int) -> float:
    """As the server says (seconds), else doubling."""
    told = response.headers.get("Retry-After", "")
    wait = float(told) if told.isdigit() else FIRST_WAIT_S * 2**attempt
    return min(wait, LONGEST_WAIT_S)


def _checked(response: httpx.Response) -> httpx.Response:
    if response.status_code < FIRST_ERROR:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    raise error_of(response.status_code, problem if isinstance(problem, dict) else {})
