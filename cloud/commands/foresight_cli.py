"""The commands that look at what became of breaches, and ahead: over the API of a running service.

Must never compute: the service does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cloud.commands.command import USAGE, Json, end
from cloud.commands.derived_cli import pair
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

if TYPE_CHECKING:
    from cloud.client import TwinClient

Vehicle = Annotated[str, typer.Argument(help="A vehicle's id.")]
MANY: Final = 50
NAMES: Final = ("breaches", "what-if", "fleet-health", "maintenance")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog=BREACHES)(breaches)
    app.command("what-if", epilog=WHAT_IF)(what_if)
    app.command("fleet-health", epilog=HEALTH)(fleet_health)


BREACHES: Final = """\b
Examples:
  twin-cloud breaches V001
  twin-cloud breaches V001 --filter state=declined --json
"""
WHAT_IF: Final = """\b
Examples:
  twin-cloud what-if V001 --at distance_km=0 --at load_kg=7000 --until 120
  twin-cloud what-if --cohort north --scenarios scenarios.json --json
"""
HEALTH: Final = """\b
Examples:
  twin-cloud fleet-health --limit 20
  twin-cloud fleet-health --filter cohort=north --filter soh__lt=0.85 --json
"""


def breaches(
    vehicle: Vehicle,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List a vehicle's breaches and what became of each, the highest odometer first."""
    with service(server, key_file) as twin:
        asked = params_of(filters, limit=min(limit, 500))
        rows = rows_of(twin.list_breaches(vehicle, **asked), limit)
    columns = ["trip_id", "odometer", "odometer_unit", "error_v", "state", "brought", "reason"]
    _show(rows, [*columns, "received_at", "message_id"], as_json=as_json)


def fleet_health(
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List health, the lowest first, and where it is forecast to fall to the limit."""
    with service(server, key_file) as twin:
        rows = rows_of(twin.list_health(**params_of(filters, limit=min(limit, 500))), limit)
    columns = ["vehicle_id", "state", "state_of_health", "band95_lower", "band95_upper"]
    if not as_json:
        rows = [
            {
                **row,
                "limit_odometer": (row["limit_odometer"] or {}).get("value"),
                "limit_at": (row["limit_at"] or {}).get("value"),
            }
            for row in rows
        ]
    _show(rows, [*columns, "odometer", "limit_odometer", "limit_at"], as_json=as_json)


def what_if(  # noqa: PLR0913  # each is an option
    vehicle: Annotated[str | None, typer.Argument(help="Its id; or --cohort.")] = None,
    cohort: Annotated[str | None, typer.Option(help="The first vehicles of a cohort.")] = None,
    at: Annotated[
        list[str] | None, typer.Option(help="FEATURE=VALUE; the swept one is where it stands now.")
    ] = None,
    until: Annotated[
        float | None, typer.Option(help="Of the swept feature, where the trip ends.")
    ] = None,
    scenarios: Annotated[
        Path | None, typer.Option(help="Several, in a file: JSON as the API takes them.")
    ] = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    as_json: Json = False,
) -> None:
    """Ask what conditions or planned trips come to: range, arrival, cut-off."""
    if (vehicle is None) == (cohort is None):
        end("what-if takes a vehicle or --cohort.", USAGE)
    if (at is None) == (scenarios is None):
        end("what-if takes --at or --scenarios.", USAGE)
    content = _scenarios(scenarios) if scenarios else [_scenario(at or [], until)]
    with service(server, key_file) as twin:
        found = _asked_what_if(twin, vehicle, cohort, content)
    if as_json:
        show_one(found)
        return
    _show(_flat(found), ["vehicle_id", "scenario", *FIGURES, "problem"], as_json=False)


FIGURES: Final = (
    "remaining",
    "low",
    "high",
    "unit",
    "arrives",
    "probability",
    "arrival_v",
    "charge",
)


def _asked_what_if(
    twin: TwinClient, vehicle: str | None, cohort: str | None, scenarios: object
) -> dict[str, Any]:
    from pydantic import ValidationError  # noqa: PLC0415

    from cloud.api.what_if_schemas import FleetWhatIf, WhatIf  # noqa: PLC0415

    try:
        if vehicle is not None:
            wanted = WhatIf.model_validate({"scenarios": scenarios})
            answer = twin.what_if_vehicle(vehicle, wanted).model_dump(mode="json")
            return {"items": [{"vehicle_id": vehicle, "answer": answer, "problem": None}]}
        asked = FleetWhatIf.model_validate({"cohort": cohort, "scenarios": scenarios})
    except ValidationError as error:
        first = error.errors()[0]
        end(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", USAGE)
    return twin.what_if_fleet(asked).model_dump(mode="json")


def _scenario(at: Sequence[str], until: float | None) -> dict[str, Any]:
    return {"name": "asked", "conditions": dict(pair(one) for one in at), "until": until}


def _scenarios(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        end(f"{path} cannot be read ({error}).", USAGE)


def _flat(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for item in found["items"]:
        row = {"vehicle_id": item["vehicle_id"], "problem": item["problem"]}
        if item["answer"] is None:
            yield row
            continue
        for outcome in item["answer"]["outcomes"]:
            left, arrival = outcome["remaining"] or {}, outcome["arrival"] or {}
            yield {
                **row,
                "scenario": outcome["name"],
                "remaining": left.get("value"),
                **{name: left.get(name) for name in ("low", "high", "unit")},
                "arrives": outcome["arrives"],
                "probability": outcome["arrival_probability"],
                "arrival_v": (arrival.get("voltage") or {}).get("voltage_v"),
                "charge": (arrival.get("charge") or {}).get("value"),
            }


def show_one(content: object) -> None:
    """As JSON on stdout."""
    typer.echo(json.dumps(content, indent=2))


def _show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    from cloud.commands.reports import show  # noqa: PLC0415  # the other commands start faster

    show(rows, columns, as_json=as_json)
