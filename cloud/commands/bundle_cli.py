"""`twin-cloud bundle`: bring another bundle to vehicles over the air, and see how far it has come.

Must never sign anything: the service does, from what is written here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cloud.commands.command import NOT_FOUND, USAGE, Database, Json, end, require

bundle = typer.Typer(
    help="Bring another bundle to vehicles over the air, and see how far it has come.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@bundle.command(
    epilog="""\b
Examples:
  twin-cloud bundle announce car-7 --bundle bundle-2 --reason "winter trips" --database twin.db
  twin-cloud bundle announce --all --bundle bundle-2 --database twin.db
"""
)
def announce(
    database: Database,
    folder: Annotated[Path, typer.Option("--bundle", help="The bundle's folder.")],
    vehicles: Annotated[list[str] | None, typer.Argument(metavar="VEHICLE...")] = None,
    *,
    everyone: Annotated[
        bool, typer.Option("--all", help="Every vehicle that runs another bundle.")
    ] = False,
    reason: Annotated[str, typer.Option(help="In a few words; the vehicle logs it.")] = "",
) -> None:
    """Try a bundle, keep its files, and let the service announce it to these vehicles."""
    from cloud.commands import bundle_reports  # noqa: PLC0415  # the other commands start faster

    require(database)
    if bool(vehicles) == everyone:
        end("name vehicles, or give --all: one of the two.", USAGE)
    ordered = bundle_reports.announce(database, folder, vehicles, reason, time.time())
    if isinstance(ordered, str):
        end(f"There is no vehicle {ordered!r} in {database}.", NOT_FOUND)
    typer.echo(f"Ordered for {len(ordered)} vehicle(s); the service announces it.", err=True)


@bundle.command()
def status(database: Database, *, as_json: Json = False) -> None:
    """List each vehicle: the bundle it runs, its newest release, and what it said of that."""
    from cloud.commands import bundle_reports  # noqa: PLC0415

    require(database)
    bundle_reports.status(database, as_json=as_json)
