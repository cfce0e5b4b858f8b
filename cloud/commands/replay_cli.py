"""`twin-cloud recalibrate`, `pin` and `unpin`: what an operator orders about a vehicle's history.

Must never send anything: the service does, from what is written here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer

from cloud.commands.command import NOT_FOUND, REFUSED, Json, end
from cloud.errors import PinError, RecalibrationError

RECALIBRATE_EXAMPLES: Final = """\b
Examples:
  twin-cloud recalibrate car-7 --from 3 --by desk --why "a late backlog" --config twin-cloud.toml
  twin-cloud recalibrate car-7 --from 0 --by desk --why "how would it be" --dry-run --config c.toml
"""
PIN_EXAMPLES: Final = """\b
Example:
  twin-cloud pin car-7 --to 3 --by "fleet desk" --why "a bad sensor" --config twin-cloud.toml
"""
UNPIN_EXAMPLES: Final = """\b
Example:
  twin-cloud unpin car-7 --by "fleet desk" --why "the sensor was changed" --config twin-cloud.toml
"""

Service = Annotated[Path, typer.Option("--config", help="The service's configuration (TOML).")]
By = Annotated[str, typer.Option("--by", help="Who says so.")]
Why = Annotated[str, typer.Option("--why", help="In a few words.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog=RECALIBRATE_EXAMPLES)(recalibrate)
    app.command(epilog=PIN_EXAMPLES)(pin)
    app.command(epilog=UNPIN_EXAMPLES)(unpin)


def recalibrate(
    vehicle: str,
    config: Service,
    start: Annotated[
        int,
        typer.Option(
            "--from", min=0, help="Replay what was recorded after this revision; 0: all of it."
        ),
    ],
    by: By,
    why: Why,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would come of it; order nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Replay a vehicle's breaches, late ones too, as a new branch at the end of its chain."""
    from cloud.commands import replay_reports  # noqa: PLC0415  # the other commands start faster

    _require(config, vehicle)
    now = time.time()
    try:
        if dry_run:
            replay_reports.rehearse(config, vehicle, start, now, as_json=as_json)
            return
        replay_reports.order_recalibration(config, vehicle, start, by, why, now)
    except RecalibrationError as error:
        end(str(error), REFUSED)
    typer.echo(f"Ordered: breaches after revision {start} again; the service does it.", err=True)


def pin(
    vehicle: str,
    config: Service,
    to: Annotated[int, typer.Option("--to", min=1, help="The revision whose content is kept.")],
    by: By,
    why: Why,
) -> None:
    """Keep the content of a revision: until `unpin` breaches bring no revision."""
    from cloud.commands import replay_reports  # noqa: PLC0415

    _require(config, vehicle)
    try:
        replay_reports.order_pin(config, vehicle, to, by, why, time.time())
    except PinError as error:
        end(str(error), REFUSED)
    typer.echo(f"Pinned to revision {to}; the service sends its content again.", err=True)


def unpin(vehicle: str, config: Service, by: By, why: Why) -> None:
    """End a pin: the next breach brings a revision again."""
    from cloud.commands import replay_reports  # noqa: PLC0415

    _require(config, vehicle)
    try:
        replay_reports.end_pin(config, vehicle, by, why, time.time())
    except PinError as error:
        end(str(error), REFUSED)
    typer.echo("Not pinned any more.", err=True)


def _require(config: Path, vehicle: str) -> None:
    """End with NOT_FOUND when nobody knows the vehicle."""
    from cloud.commands import replay_reports  # noqa: PLC0415

    if not replay_reports.knows(config, vehicle):
        end(f"There is no vehicle {vehicle!r}.", NOT_FOUND)
