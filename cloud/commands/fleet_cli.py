"""`twin-cloud fleet-prior` and `battery-replaced`: what an operator does about batteries.

Must never make a revision: the service does, from what is written here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cloud.commands.command import NOT_FOUND, REFUSED, Database, Json, end, require
from cloud.errors import BatteryOrderError

fleet_prior = typer.Typer(
    help="The fleet's prior, with which new vehicles and replaced batteries begin.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
BundleFolder = Annotated[Path, typer.Option("--bundle", help="The bundle's folder.")]


@fleet_prior.command(
    epilog="""\b
Example:
  twin-cloud fleet-prior make --bundle bundle --database twin.db
"""
)
def make(bundle: BundleFolder, database: Database) -> None:
    """Learn the next version from the fleet as it is now; the service does so by itself, too."""
    from cloud.commands import fleet_reports  # noqa: PLC0415  # the other commands start faster

    require(database)
    row = fleet_reports.make(database, bundle, time.time())
    typer.echo(f"Made version {row.version}; its SHA-256:", err=True)
    typer.echo(row.hash)


@fleet_prior.command()
def show(bundle: BundleFolder, database: Database, *, as_json: Json = False) -> None:
    """Print the newest version of a bundle's prior: what to expect of a battery by age."""
    from cloud.commands import fleet_reports  # noqa: PLC0415

    require(database)
    if not fleet_reports.show(database, bundle, as_json=as_json):
        end(f"The bundle in {bundle} has no fleet prior in {database} yet.", NOT_FOUND)


@fleet_prior.command("list")
def list_versions(database: Database, *, as_json: Json = False) -> None:
    """List every version of every bundle's prior with its SHA-256, the oldest first."""
    from cloud.commands import fleet_reports  # noqa: PLC0415

    require(database)
    fleet_reports.list_versions(database, as_json=as_json)


def battery_replaced(
    vehicle: str,
    database: Database,
    by: Annotated[str, typer.Option("--by", help="Who says so.")],
    odometer: Annotated[
        float | None, typer.Option(help="Where it was replaced; default: the vehicle's last.")
    ] = None,
    why: Annotated[str, typer.Option(help="In a few words.")] = "",
) -> None:
    """Begin anew with a replaced battery: the service makes a revision from the fleet's prior."""
    from cloud.commands import fleet_reports  # noqa: PLC0415

    require(database)
    try:
        order = fleet_reports.order_battery(database, vehicle, odometer, by, why, time.time())
    except BatteryOrderError as error:
        end(str(error), REFUSED)
    if order is None:
        end(f"There is no vehicle {vehicle!r} in {database}.", NOT_FOUND)
    typer.echo(f"Ordered for odometer {order.odometer:.6g}; the service carries it out.", err=True)
