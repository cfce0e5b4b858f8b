"""The commands that show what a running service knows: over its API, from anywhere.

Must never open a database: `history`, `verify` and their like do.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloud.commands.command import FAILED, Json, end
from cloud.commands.remote import (
    LOCAL,
    Filters,
    KeyFile,
    Limit,
    Server,
    params_of,
    rows_of,
    service,
)

Vehicle = Annotated[str, typer.Argument(help="A vehicle's id.")]
MANY: Final = 50
LISTS: Final = (
    "vehicles",
    "trips",
    "breaches",
    "revisions",
    "provisionals",
    "quarantine",
    "events",
    "audit",
)
NAMES: Final = (
    "vehicles",
    "trips",
    "trace",
    "revisions",
    "parameters",
    "diff",
    "summary",
    "events",
    "export",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (vehicles, trips, trace, revisions, parameters, diff, summary, events, export):
        app.command(epilog=EXAMPLES.get(command.__name__))(command)


EXAMPLES: Final = {
    "vehicles": """\b
Examples:
  twin-cloud vehicles --sort=-drift --limit 20
  twin-cloud vehicles --filter soh__lt=0.8 --filter state=stale --json
""",
    "parameters": """\b
Examples:
  twin-cloud parameters gain_distance --vehicle V001
  twin-cloud parameters gain_distance --filter cohort=north --filter vehicles=20 --json
""",
    "events": """\b
Examples:
  twin-cloud events --filter kind=revision. --limit 20
  twin-cloud events --follow --filter cohort=north --json
""",
    "export": """\b
Examples:
  twin-cloud export vehicles --format parquet --out vehicles.parquet
  twin-cloud export trips --vehicle V001 --filter breach=true > trips.csv
""",
}


def vehicles(
    server: Server = LOCAL,
    key_file: KeyFile = None,
    sort: Annotated[str, typer.Option(help="-drift: the fastest ageing first.")] = "vehicle_id",
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List vehicles: state, health, drift, error, when they were last seen."""
    with service(server, key_file) as twin:
        asked = params_of(filters, sort=sort, limit=min(limit, 500))
        rows = rows_of(twin.list_vehicles(**asked), limit)
    columns = ["vehicle_id", "state", "soh", "soh_std", "drift", "last_trip_error_v", "breaches"]
    _show(rows, [*columns, "odometer", "odometer_unit", "last_seen_at"], as_json=as_json)


def trips(
    vehicle: Vehicle,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List a vehicle's trips, the highest odometer first."""
    with service(server, key_file) as twin:
        asked = params_of(filters, limit=min(limit, 500))
        rows = rows_of(twin.list_trips(vehicle, **asked), limit)
    columns = ["trip_id", "started_at", "odometer_end", "odometer_unit", "error_v", "coverage95"]
    _show(rows, [*columns, "breach", "revision"], as_json=as_json)


def trace(
    vehicle: Vehicle,
    trip: str,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    as_json: Json = False,
) -> None:
    """Show a breach's trace: measured, predicted, and predicted by the revision it brought."""
    with service(server, key_file) as twin:
        found = twin.get_trace(vehicle, trip).model_dump(mode="json")
    if as_json:
        _show_one(found)
        return
    rows = [
        {
            "time_s": point["time_s"],
            "measured_v": point["measured_v"],
            "predicted_v": point["predicted"]["voltage_v"],
            "recalibrated_v": (point["recalibrated"] or {}).get("voltage_v"),
        }
        for point in found["points"]
    ]
    _show(rows, list(rows[0]), as_json=False)


def revisions(
    vehicle: Vehicle,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List a vehicle's revisions: cause, errors, verdict; the newest first."""
    with service(server, key_file) as twin:
        asked = params_of(filters, limit=min(limit, 500))
        rows = rows_of(twin.list_revisions(vehicle, **asked), limit)
    flat = rows if as_json else [{**row["cause"], **row} for row in rows]
    columns = ["number", "created_at", "odometer", "kind", "base", "error_before_v"]
    _show(
        flat, [*columns, "error_after_v", "approval", "verdict", "verdict_reason"], as_json=as_json
    )


def parameters(
    name: Annotated[str, typer.Argument(help="A parameter's name, as the bundle has it.")],
    vehicle: Annotated[str | None, typer.Option(help="Of one [default: of those listed].")] = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    *,
    as_json: Json = False,
) -> None:
    """Show a parameter over revisions, with its 95 % band."""
    with service(server, key_file) as twin:
        asked = params_of(filters)
        if vehicle is None:
            found = twin.get_fleet_parameter_history(name, **asked)
        else:
            found = twin.get_parameter_history(vehicle, name, **asked)
    content = found.model_dump(mode="json")
    if as_json:
        _show_one(content)
        return
    columns = ["vehicle_id", "revision", "odometer", "created_at", "value", "std"]
    _show(content["points"], [*columns, "band95_lower", "band95_upper"], as_json=False)


def diff(
    vehicle: Vehicle,
    number: int,
    other: int,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    as_json: Json = False,
) -> None:
    """Compare two revisions: what changed, and whether it is more than chance."""
    with service(server, key_file) as twin:
        content = twin.compare_revisions(vehicle, number, other).model_dump(mode="json")
    if as_json:
        _show_one(content)
        return
    columns = ["name", "unit", "from_value", "from_std", "to_value", "to_std", "change", "z"]
    _show(content["parameters"], [*columns, "significant"], as_json=False)


def summary(
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    *,
    as_json: Json = False,
) -> None:
    """Show what came in a time (from=, to=, cohort=), and how the fleet stands."""
    with service(server, key_file) as twin:
        content = twin.get_summary(**params_of(filters)).model_dump(mode="json")
    if as_json:
        _show_one(content)
        return
    rows = [{"figure": name, "value": value} for name, value in content.items()]
    _show(rows, ["figure", "value"])


def events(  # each is an option
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    is_followed: Annotated[
        bool, typer.Option("--follow", help="What happens from now on, until Ctrl-C.")
    ] = False,
    after: Annotated[
        str | None, typer.Option("--after", help="With --follow: from behind this event's id.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what happened, the latest first (kind=, vehicle_id=, cohort=, from=, to=)."""
    from cloud.commands.following import follow  # noqa: PLC0415  # the other commands start faster

    with service(server, key_file) as twin:
        if is_followed:
            follow(twin, after or twin.newest_event(), as_json=as_json, **params_of(filters))
            return
        asked = params_of(filters, limit=min(limit, 500))
        rows = rows_of(twin.list_events(**asked), limit)
    _show(rows, ["id", "at", "kind", "vehicle_id", "actor", "detail"], as_json=as_json)


def export(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(LISTS)}.")],
    vehicle: Annotated[
        str | None, typer.Option(help="For trips, breaches, revisions, provisionals.")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="csv, ndjson or parquet.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="A file [default: stdout].")] = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
) -> None:
    """Write a whole list as a file; where it was cut off, its end says so."""
    with service(server, key_file) as twin:
        pieces = twin.export(what, vehicle, **params_of(filters, format=form))
        try:
            if out is None:
                sys.stdout.buffer.writelines(pieces)
            else:
                with out.open("wb") as file:
                    file.writelines(pieces)
        except OSError as error:
            end(f"The file cannot be written ({error.strerror}).", FAILED)


def _show(rows: Any, columns: list[str], *, as_json: bool = False) -> None:
    from cloud.commands.reports import show  # noqa: PLC0415

    show(rows, columns, as_json=as_json)


def _show_one(content: object) -> None:
    import msgspec  # noqa: PLC0415

    typer.echo(msgspec.json.format(msgspec.json.encode(content), indent=2).decode())
