"""Schemathesis over the whole operator API: `python -m bench.api_fuzz [--examples N] [--json]`.

Each operation is asked what its description allows, and what it does not, with an admin's key and
without any. Counted: 5xx, answers that are not described, and what is readable without a key. Must
never know more of the API than its description says.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from rich.console import Console
from schemathesis import GenerationMode
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)

from bench.figures import Figure, document, print_table

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
Known = Mapping[str, str | int]
FOLLOWED: Final = "/api/v1/events/stream"  # an answer without an end


@dataclass
class Found:
    """What a run found: how much was asked, and one sentence for each failure."""

    operations: int = 0
    asked: int = 0
    failures: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz a service with a small fleet, and print."""
    from bench.api_world import served, world  # noqa: PLC0415  # the test brings its own service

    parser = argparse.ArgumentParser(prog="python -m bench.api_fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=100, help="for each operation")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        built = world(Path(folder), vehicles=20, revisions=10)
        with served(built) as service:
            places: Known = {"vehicle_id": "car-00007", "number": 3, "other": 5}
            known = {**places, "name": built.parameter}
            with_key = fuzz(service.url, service.key, options.examples, known)
            without = fuzz(service.url, None, options.examples)
    for failure in with_key.failures + without.failures:
        print(failure, file=sys.stderr)
    figures = [
        Figure("asked with a key", with_key.asked, "", note=f"{with_key.operations} operations"),
        Figure("failures", len(with_key.failures), "", 0, 0, note="5xx, or not described"),
        Figure("asked without a key", without.asked, ""),
        Figure("failures without", len(without.failures), "", 0, 0, note="or readable"),
    ]
    if options.json:
        print(json.dumps(document(figures), indent=2))
    else:
        print_table("The operator API, fuzzed", figures, Console(width=120))
    return 1 if with_key.failures or without.failures else 0


def fuzz(url: str, key: str | None, examples: int, known: Known | None = None) -> Found:
    """Ask every operation so often; without a key each must say 401, unless it is open.

    `known` are places in addresses where there is something: every second question goes there.
    """
    found = Found()
    for operation in operations(url):
        found.operations += 1
        failure = _failure(operation, key, examples, found, known or {})
        if failure is not None:
            found.failures.append(f"{operation.method.upper()} {operation.path}: {failure}")
    return found


def operations(url: str) -> Iterator[Any]:
    """Of the description that the service gives."""
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json")
    schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    for result in schema.get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]  # ours is one
        if operation.path != FOLLOWED:
            yield operation


def _failure(
    operation: Any,
    key: str | None,
    examples: int,
    found: Found,
    known: Known,
) -> str | None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    is_open = not operation.definition.raw.get("security")

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        found.asked += 1
        if found.asked % 2:
            there = {name: known.get(name, value) for name, value in case.path_parameters.items()}
            case.path_parameters = there
        case.headers = {k: v for k, v in (case.headers or {}).items() if k != "Authorization"}
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS)
        if key is None and not is_open:
            assert response.status_code == HTTPStatus.UNAUTHORIZED, response.status_code  # noqa: S101

    try:
        ask()
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # each is a finding
        return f"{type(error).__name__}: {error}"[:2000]
    return None


if __name__ == "__main__":
    sys.exit(main())
