"""`twin-cloud traces`: where the traces of breaches are, what moves them, and one of them.

Must never let a trace go that the service's own worker would keep.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from cloud.commands.command import NOT_FOUND, REFUSED, Json, end

Service = Annotated[Path, typer.Option("--config", help="The service's configuration (TOML).")]

traces: Final = typer.Typer(
    help="Traces of breaches: in the database, then in the archive.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@traces.command(
    epilog="""\b
Examples:
  twin-cloud traces archive --config twin-cloud.toml
  twin-cloud traces archive --config twin-cloud.toml --json
"""
)
def archive(config: Service, *, as_json: Json = False) -> None:
    """Move what is old to the archive now, and remove what is kept no longer.

    The service does it by itself every ten minutes; both at once do no harm.
    """
    from cloud.commands import trace_reports  # noqa: PLC0415  # the other commands start faster

    if not trace_reports.archive(config, as_json=as_json):
        end("There is no [traces] archive: every trace stays in the database.", REFUSED)


@traces.command(
    epilog="""\b
Examples:
  twin-cloud traces status --config twin-cloud.toml
  twin-cloud traces status --config twin-cloud.toml --json
"""
)
def status(config: Service, *, as_json: Json = False) -> None:
    """How many traces are in the database, and in the archive month by month."""
    from cloud.commands import trace_reports  # noqa: PLC0415

    trace_reports.status(config, as_json=as_json)


@traces.command(
    epilog="""\b
Examples:
  twin-cloud traces fetch car-7 trip-12 --config twin-cloud.toml
  twin-cloud traces fetch car-7 trip-12 --config twin-cloud.toml --json > trace.json
"""
)
def fetch(vehicle: str, trip: str, config: Service, *, as_json: Json = False) -> None:
    """Print the trace of a trip that was a breach, wherever it is; JSON: as it was sent."""
    from cloud.commands import trace_reports  # noqa: PLC0415

    if not trace_reports.fetch(config, vehicle, trip, as_json=as_json):
        end(f"There is no breach of trip {trip!r} of vehicle {vehicle!r}.", NOT_FOUND)
