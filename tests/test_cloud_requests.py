"""A request is found again: its trace id is on the answer, in the problem and in the log."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import Headers

from cloud.api.access import Context
from cloud.api.requests_log import trace_id_of
from cloud.observability.logs import JsonLines
from tests.cloud_doubles import Insides, problem, serving, write_bundle
from tests.waiting import eventually

GIVEN = "4bf92f3577b34da6a3ce929d0e0e4736"
NEW = re.compile(r"[0-9a-f]{32}\Z")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the API logs."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines("api"))
    log = logging.getLogger("cloud.api")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield written
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    checks = {"database": lambda: None, "broken": broken}
    with serving(Context(inside.store, inside.catalogue, lambda: inside.now, checks)) as made:
        yield made
    inside.store.close()


def broken() -> None:
    raise RuntimeError("no check")


def said(lines: io.StringIO, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [one for one in found if one["event"] == event]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": f"00-{GIVEN}-00f067aa0ba902b7-01"}, GIVEN),
        ({"X-Request-Id": GIVEN}, GIVEN),
        ({"X-Request-Id": "4BF92F35-77b3-4da6-a3ce-929d0e0e4736"}, GIVEN),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"00-{GIVEN}"}, None),
        ({"X-Request-Id": "a b\tc"}, None),
        ({}, None),
    ],
)
def test_the_callers_trace_is_kept_where_it_is_one(
    headers: dict[str, str], expected: str | None
) -> None:
    found = trace_id_of(Headers(headers))
    assert found == expected if expected else NEW.match(found)
    assert expected or found != trace_id_of(Headers(headers))


def test_a_request_has_one_line_with_its_trace_and_who_asked(
    client: httpx.Client, lines: io.StringIO
) -> None:
    answer = client.get("/api/v1/vehicles?q=secret", headers={"X-Request-Id": GIVEN})
    assert answer.headers["X-Request-Id"] == GIVEN
    eventually(lambda: said(lines, "api_answered"), what="the line")
    [line] = said(lines, "api_answered")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/vehicles", 422)
    assert (line["trace_id"], line["actor"], line["level"]) == (GIVEN, "anonymous", "INFO")
    assert "secret" not in lines.getvalue()


def test_a_problem_names_the_trace_that_the_log_has(
    client: httpx.Client, lines: io.StringIO
) -> None:
    missing = client.get("/api/v1/vehicles/nobody")
    found = problem(missing, 404)["trace_id"]
    assert NEW.match(found)
    assert missing.headers["X-Request-Id"] == found
    failed = client.get("/health/ready")
    trace_id = problem(failed, 500)["trace_id"]
    assert failed.headers["X-Request-Id"] == trace_id
    eventually(lambda: len(said(lines, "api_answered")) == 2, what="both lines")
    assert [one["trace_id"] for one in said(lines, "api_answered")] == [found, trace_id]
    assert [one["trace_id"] for one in said(lines, "api_failed")] == [trace_id]


def test_what_a_supervisor_asks_has_a_line_only_when_it_fails(
    client: httpx.Client, lines: io.StringIO
) -> None:
    client.get("/health/live")
    client.get("/health/ready")
    eventually(lambda: said(lines, "api_answered"), what="the line")
    assert [one["path"] for one in said(lines, "api_answered")] == ["/health/ready"]
