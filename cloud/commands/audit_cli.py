"""`twin-cloud verify`, `heads`, `audit`, `reproduce`, `lineage`: what proves the history.

Must never compute: they take the question apart and hand it on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from cloud.commands.command import FAILED, NOT_FOUND, USAGE, Database, Json, end, require

VERIFY_EXAMPLES: Final = """\b
Examples:
  twin-cloud verify --database twin.db --public-key keys/public.pem
  twin-cloud verify --database twin.db --heads /mnt/worm/heads --json
  twin-cloud verify --database twin.db --heads s3://audit-bucket/twin
"""
EXPORT_EXAMPLES: Final = """\b
Examples:
  twin-cloud heads export /mnt/worm/heads --database twin.db
  twin-cloud heads export s3://audit-bucket/twin --database twin.db
"""

AUDIT_EXAMPLES: Final = """\b
Examples:
  twin-cloud audit car-7 12 --database twin.db
  twin-cloud audit car-7/12 --database twin.db --json
"""
REPRODUCE_EXAMPLES: Final = """\b
Examples:
  twin-cloud reproduce car-7 12 --config twin-cloud.toml
  twin-cloud reproduce car-7/12 --config twin-cloud.toml --json
"""

LINEAGE_EXAMPLES: Final = """\b
Examples:
  twin-cloud lineage car-7 --database twin.db > car-7.json
  twin-cloud lineage car-7 --format svg --database twin.db > car-7.svg
"""

Which = Annotated[str, typer.Argument(metavar="VEHICLE", help="Or VEHICLE/NUMBER in one word.")]
Number = Annotated[int | None, typer.Argument(help="The number of a revision.", min=1)]
Service = Annotated[Path, typer.Option("--config", help="The service's configuration (TOML).")]
Form = Literal["prov", "dot", "svg"]
Keys = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key",
        help="Trust these keys only; without any, those that the database remembers.",
    ),
]

heads = typer.Typer(
    help="Signed statements of where every chain stood.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog=VERIFY_EXAMPLES)(verify)
    app.add_typer(heads, name="heads")
    app.command(epilog=AUDIT_EXAMPLES)(audit)
    app.command(epilog=REPRODUCE_EXAMPLES)(reproduce)
    app.command(epilog=LINEAGE_EXAMPLES)(lineage)


def verify(
    database: Database,
    public_key: Keys = None,
    heads: Annotated[  # the option's name
        str | None,
        typer.Option(
            metavar="PLACE",
            help="Exported statements to compare with: a folder, or s3://bucket/prefix.",
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, help="[default: as many as there are processors]")
    ] = None,
    *,
    all_signatures: Annotated[
        bool,
        typer.Option(
            "--all-signatures", help="Check also the signatures that a signed statement covers."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Walk every vehicle's chain; name each first broken link (exit code 1).

    What a signed statement of heads covers is proven by hashes, the rest by signatures.
    """
    from cloud.commands import audit_reports  # noqa: PLC0415  # the other commands start faster

    require(database)
    wanted = audit_reports.Wanted(public_key or [], heads, processes, all_signatures)
    if not audit_reports.verify(database, wanted, as_json=as_json):
        sys.exit(FAILED)


@heads.command(epilog=EXPORT_EXAMPLES)
def export(
    to: Annotated[str, typer.Argument(help="A folder, or s3://bucket/prefix.")],
    database: Database,
) -> None:
    """Write every signed statement that is not there yet; none is ever written over."""
    from cloud.commands import audit_reports  # noqa: PLC0415

    require(database)
    count = audit_reports.export_heads(database, to)
    if count == 0:
        end(
            "The service has signed no statement yet: it does so every [heads] every_minutes.",
            NOT_FOUND,
        )
    typer.echo(f"{count} statements are in {to}.", err=True)


def audit(
    vehicle: Which, database: Database, number: Number = None, *, as_json: Json = False
) -> None:
    """What is known of a revision: cause, inputs, who approved it, pushes, verdicts."""
    from cloud.commands import audit_reports  # noqa: PLC0415

    vehicle, number = _revision(vehicle, number)
    require(database)
    if not audit_reports.audit(database, vehicle, number, as_json=as_json):
        end(f"There is no revision {number} of vehicle {vehicle!r} in {database}.", NOT_FOUND)


def reproduce(
    vehicle: Which, config: Service, number: Number = None, *, as_json: Json = False
) -> None:
    """Compute a revision again from what it was made from; exit code 1 when a byte differs."""
    from cloud.commands import audit_reports  # noqa: PLC0415

    vehicle, number = _revision(vehicle, number)
    same = audit_reports.reproduce(config, vehicle, number, as_json=as_json)
    if same is None:
        end(f"There is no revision {number} of vehicle {vehicle!r}.", NOT_FOUND)
    if not same:
        sys.exit(FAILED)


def lineage(
    vehicle: str,
    database: Database,
    form: Annotated[
        Form, typer.Option("--format", help="PROV-JSON, a Graphviz graph, or a picture.")
    ] = "prov",
) -> None:
    """Print from what a vehicle's revisions came: W3C PROV, or a graph."""
    from cloud.commands import audit_reports  # noqa: PLC0415

    require(database)
    if not audit_reports.lineage(database, vehicle, form):
        end(f"There is no revision of vehicle {vehicle!r} in {database}.", NOT_FOUND)


def _revision(vehicle: str, number: int | None) -> tuple[str, int]:
    """`car-7 12`, or `car-7/12`; ends with USAGE where it is neither."""
    if number is not None:
        return vehicle, number
    vehicle_id, _, digits = vehicle.rpartition("/")
    if not vehicle_id or not digits.isascii() or not digits.isdecimal():
        end(f"{vehicle!r} names no revision: give VEHICLE NUMBER, or VEHICLE/NUMBER.", USAGE)
    return vehicle_id, int(digits)
