"""Log lines: what they carry, and that nothing from outside can forge one."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.observability.logs import TEMPLATE, Style, configure_logging
from cloud.observability.trace_ids import trace_id

ROOT = Path(__file__).resolve().parent.parent
CLOUD = ROOT / "cloud"
OLD_NAMES = {"vehicle", "message", "number", "breach"}  # _id, _id, revision, message_id

Write = Callable[..., str]


@pytest.fixture
def write() -> Iterator[Callable[[Style], Write]]:
    """Log through the whole chain; gives back what came out."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def in_style(style: Style) -> Write:
        def line(template: str, *values: object, exc_info: bool = False) -> str:
            out = io.StringIO()
            configure_logging(style, "worker", out)
            logging.getLogger("cloud.test").info(template, *values, exc_info=exc_info)
            return out.getvalue()

        return line

    yield in_style
    root.handlers, root.level = handlers, level


def test_a_json_line_names_vehicle_message_revision_trace_and_role(
    write: Callable[[Style], Write],
) -> None:
    told = write("json")("settled vehicle_id=%s message_id=%s revision=%d", "car", "ab" * 16, 7)
    line = json.loads(told)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "INFO",
        "logger": "cloud.test",
        "role": "worker",
        "event": "settled",
        "vehicle_id": "car",
        "message_id": "ab" * 16,
        "revision": 7,
        "trace_id": trace_id("ab" * 16),
    }


def test_a_message_that_is_no_breach_has_no_trace(write: Callable[[Style], Write]) -> None:
    line = json.loads(write("json")("refused kind=%s message_id=%s", "trip", "ab" * 16))
    assert "trace_id" not in line


def test_what_to_do_stands_beside_the_fields(write: Callable[[Style], Write]) -> None:
    line = json.loads(write("json")("waits why=%r: trying again", "no route"))
    assert (line["event"], line["why"], line["hint"]) == ("waits", "no route", "trying again")


def test_a_text_line_is_logfmt(write: Callable[[Style], Write]) -> None:
    told = write("text")("settled vehicle_id=%s reason=%r revision=%s", "car", 'a "b" c', None)
    assert told.split(" ", 1)[1] == (
        "level=INFO logger=cloud.test role=worker event=settled vehicle_id=car "
        'reason="a \\"b\\" c" revision=null\n'
    )


def test_a_library_speaks_in_one_field(write: Callable[[Style], Write]) -> None:
    line = json.loads(write("json")("Retrying %d times, event=ready", 3))
    assert (line["event"], line["text"]) == ("library", "Retrying 3 times, event=ready")


def test_a_value_is_cut_where_it_is_too_long(write: Callable[[Style], Write]) -> None:
    assert len(write("json")("refused reason=%r", "x" * 100_000)) < 2500


@given(value=st.text(), style=st.sampled_from(["text", "json"]))
def test_no_value_forges_a_line_or_a_field(value: str, style: Style) -> None:
    out = io.StringIO()
    logger = logging.getLogger("cloud.forged")
    handler = logging.StreamHandler(out)
    configure_logging(style, "ingest", out)
    handler.setFormatter(logging.getLogger().handlers[0].formatter)
    logger.handlers, logger.propagate = [handler], False
    logging.getLogger().handlers = []
    error = RuntimeError(f"{value}\n2026-01-01T00:00:00.000Z level=ERROR event=forged")
    forged = f"{value} event=forged\nevent=x"
    logger.error("refused topic=%r reason=%s", value, forged, exc_info=error)
    first, *rest = out.getvalue().splitlines()
    if style == "json":
        line = json.loads(first)
        assert not rest
        assert line["event"] == "refused"
        assert line["topic"] == value
        assert line["reason"] == forged
    else:
        assert all(each.startswith("    ") for each in rest)
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', first)  # what stands outside quotation marks
        names = [word.split("=")[0] for word in bare.split(" ")[1:]]
        assert names == ["level", "logger", "role", "event", "topic", "reason"]


def log_calls(path: Path) -> list[ast.Call]:
    methods = {"debug", "info", "warning", "error", "exception", "critical"}
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in methods
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
    ]


def test_every_call_in_the_cloud_names_an_event_and_its_fields() -> None:
    calls = [(path, call) for path in CLOUD.rglob("*.py") for call in log_calls(path)]
    assert len(calls) > 20
    for path, call in calls:
        where = f"{path.relative_to(ROOT)}:{call.lineno}"
        template = call.args[0]
        assert isinstance(template, ast.Constant), f"{where}: the template must be a literal"
        found = TEMPLATE.match(str(template.value))
        assert found, f"{where}: {template.value!r} is not `event key=%s other=%r: what to do`"
        names = re.findall(r" (\w+)=", found["fields"])
        assert len(names) == len(call.args) - 1, where
        assert not OLD_NAMES & set(names), f"{where}: write vehicle_id, message_id, revision"
