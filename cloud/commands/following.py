"""Show events as they happen, until Ctrl-C: a line each, for people or as JSON for programs.

Must never end because the service was away for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import typer

if TYPE_CHECKING:
    from cloud.api.operator_schemas import EventItem
    from cloud.client import TwinClient


def follow(twin: TwinClient, after: str, *, as_json: bool, **asked: object) -> None:
    """Ctrl-C is the end that was asked for. Raises ProblemAnswerError."""
    try:
        for event in twin.follow_events(after, _tell, **asked):
            typer.echo(event.model_dump_json() if as_json else _line(event))
    except KeyboardInterrupt:
        typer.echo("", err=True)


def _line(event: EventItem) -> str:
    detail = msgspec.json.encode(event.detail).decode() if event.detail else ""
    who = f"by {event.actor}" if event.actor else ""
    words = (f"{event.at:%Y-%m-%d %H:%M:%S}Z", event.kind, event.vehicle_id or "-", who, detail)
    return " ".join(word for word in words if word)


def _tell(sentence: str) -> None:
    typer.echo(f"twin-cloud: {sentence}", err=True)
