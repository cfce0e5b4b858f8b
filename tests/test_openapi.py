"""docs/openapi.json is what the service says of itself; what breaks clients is named."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
Document = dict[str, Any]


def tool() -> Any:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("write_openapi", ROOT / "tools/write_openapi.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def described() -> Document:
    found: Document = tool().described()
    return found


def test_the_file_is_what_the_service_says(described: Document) -> None:
    """A difference that breaks clients is named here: `make docs`, if it is meant."""
    committed = json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    assert list(tool().breaking(committed, described)) == []
    assert committed == json.loads(tool().text(described))


def gone_path(document: Document) -> None:
    del document["paths"]["/api/v1/summary"]


def gone_parameter(document: Document) -> None:
    operation = document["paths"]["/api/v1/quarantine"]["get"]
    operation["parameters"] = [one for one in operation["parameters"] if one["name"] != "error"]


def needed_parameter(document: Document) -> None:
    for one in document["paths"]["/api/v1/quarantine"]["get"]["parameters"]:
        one["required"] = one["name"] == "error"


def gone_field(document: Document) -> None:
    del document["components"]["schemas"]["TripItem"]["properties"]["error_v"]


def needed_field(document: Document) -> None:
    document["components"]["schemas"]["RangeRequest"]["required"].append("odometer")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (gone_path, "GET /api/v1/summary is gone"),
        (gone_parameter, "GET /api/v1/quarantine does not take query.error any more"),
        (needed_parameter, "GET /api/v1/quarantine needs query.error"),
        (gone_field, "TripItem has no error_v any more"),
        (needed_field, "RangeRequest needs odometer"),
    ],
)
def test_a_change_that_breaks_clients_is_named(
    described: Document, change: Callable[[Document], None], said: str
) -> None:
    changed = copy.deepcopy(described)
    change(changed)
    assert list(tool().breaking(described, changed)) == [said]


def test_more_than_before_breaks_nobody(described: Document) -> None:
    smaller = copy.deepcopy(described)
    gone_path(smaller)
    gone_field(smaller)
    assert list(tool().breaking(smaller, described)) == []
