"""Logging of the service: one line an event, as text (logfmt) or as JSON, times in UTC.

A call reads `log.info("event key=%s other=%r: what to do", ...)`. The template is the program's
own text: it alone says what is a field, so no value can add a field or begin a line. A `message_id`
is a breach's unless the field `kind` names another. Must never write to stdout, which belongs to
data, and never a payload or a secret.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, TextIO

from cloud.observability.trace_ids import trace_id

Style = Literal["text", "json"]
Value = str | int | float | bool | None

TEMPLATE: Final = re.compile(
    r"(?P<event>[a-z][a-z0-9_]*)(?P<fields>(?: [a-z][a-z0-9_]*=%[rsd])*)(?:: (?P<hint>[^%]+))?\Z"
)
LONGEST_VALUE: Final = 2000
_FIELD: Final = re.compile(r" ([a-z][a-z0-9_]*)=")
_BARE: Final = re.compile(r"[A-Za-z0-9_.,:;/+@-]+\Z")


def configure_logging(
    style: Style = "text", role: str = "serve", stream: TextIO | None = None
) -> None:
    """Send every log line of level INFO and above to `stream` (stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines(role) if style == "json" else TextLines(role))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # paho says so at each attempt; the link says it once, with the address and the cause.
    logging.getLogger("cloud.paho").addFilter(_is_not_repetition)
    for noisy in ("uvicorn", "cloud.paho", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def facts(record: logging.LogRecord) -> dict[str, Value]:
    """What a record says: `event`, its fields, perhaps a `hint`; a library's line is one `text`."""
    parsed = _parsed(record.msg) if isinstance(record.msg, str) else None
    arguments = record.args if isinstance(record.args, tuple) else (record.args,)
    if parsed is None or len(parsed[1]) != len(arguments):
        return {"event": "library", "text": _short(record.getMessage())}
    event, names, hint = parsed
    said: dict[str, Value] = {"event": event}
    said |= {name: _plain(value) for name, value in zip(names, arguments, strict=True)}
    breach = said.get("message_id")
    if isinstance(breach, str) and said.get("kind", "breach") == "breach":
        said["trace_id"] = trace_id(breach)
    return said | ({"hint": hint} if hint else {})


class JsonLines(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Value] = {**_head(record), "role": self._role, **facts(record)}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, allow_nan=False)


class TextLines(logging.Formatter):
    """logfmt; what follows an exception is indented, so that no line of it looks like one."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        head = _head(record)
        stamp = head.pop("time")
        said: Mapping[str, Value] = {**head, "role": self._role, **facts(record)}
        line = f"{stamp} " + " ".join(f"{name}={_logfmt(value)}" for name, value in said.items())
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {_printable(part)}" for part in trace)
        return line


def _head(record: logging.LogRecord) -> dict[str, Value]:
    at = datetime.fromtimestamp(record.created, UTC)
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"time": stamp, "level": record.levelname, "logger": record.name}


@lru_cache(maxsize=512)
def _parsed(template: str) -> tuple[str, tuple[str, ...], str | None] | None:
    found = TEMPLATE.match(template)
    if found is None:
        return None
    return found["event"], tuple(_FIELD.findall(found["fields"])), found["hint"]


def _plain(value: object) -> Value:
    if isinstance(value, int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return _short(str(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"


def _logfmt(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return value if _BARE.match(value) else json.dumps(value)
    return json.dumps(value)


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _is_not_repetition(record: logging.LogRecord) -> bool:
    return "not connected" not in record.getMessage()
