"""The commands that answer what an operator asks about one vehicle: health, forecast, range, plan.

Must never compute: they take the question apart and hand it on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

NOT_FOUND: Final = 3

Vehicle = Annotated[str, typer.Argument(help="A vehicle's id.")]
Service = Annotated[Path, typer.Option("--config", help="The service's configuration (TOML).")]
Odometer = Annotated[float | None, typer.Option(help="[default: its last odometer]")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(health)
    app.command(epilog=FORECAST_EXAMPLES)(forecast)
    app.command("range", epilog=RANGE_EXAMPLES)(range_)
    app.command("planned-trip")(planned_trip)


FORECAST_EXAMPLES: Final = """\b
Examples:
  twin-cloud forecast V001 --config twin-cloud.toml
  twin-cloud forecast V001 --config twin-cloud.toml --threshold 0.7 --horizon 200000 --json
"""
RANGE_EXAMPLES: Final = """\b
Examples:
  twin-cloud range V001 --config twin-cloud.toml --at distance_km=40 --at load_kg=5200
  twin-cloud range C1 --config twin-cloud.toml --at discharged_ah=0.4 --consumption-per-km 0.01
"""


def health(
    vehicle: Vehicle, config: Service, odometer: Odometer = None, *, as_json: Json = False
) -> None:
    """State of health with its 95 % band."""
    from cloud.commands import derived_reports  # noqa: PLC0415  # the other commands start faster

    _found(derived_reports.health(config, vehicle, odometer, as_json=as_json), vehicle)


def forecast(
    vehicle: Vehicle,
    config: Service,
    threshold: Annotated[float, typer.Option(help="Of state of health.")] = 0.8,
    horizon: Annotated[
        float | None,
        typer.Option(help="How far ahead, in odometer units [default: ten years of its mileage]."),
    ] = None,
    odometer_per_day: Annotated[
        float | None, typer.Option(help="Odometer units a day [default: from its trips].")
    ] = None,
    odometer_per_day_std: Annotated[float, typer.Option(help="Its uncertainty.")] = 0.0,
    *,
    as_json: Json = False,
) -> None:
    """Odometer and date at which state of health falls to a threshold, with 95 % intervals."""
    from cloud.commands import derived_reports  # noqa: PLC0415

    question = {
        "threshold": threshold,
        "horizon": horizon,
        "odometer_per_day": odometer_per_day,
        "odometer_per_day_std": odometer_per_day_std,
    }
    _found(derived_reports.forecast(config, vehicle, question, as_json=as_json), vehicle)


def range_(
    vehicle: Vehicle,
    config: Service,
    at: Annotated[
        list[str], typer.Option(help="FEATURE=VALUE; the swept one is where it stands now.")
    ],
    odometer: Odometer = None,
    consumption_per_km: Annotated[
        float | None, typer.Option(help="Of the swept feature, where it is no distance.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """What is left until the cut-off from here under given conditions, with its 95 % interval."""
    from cloud.commands import derived_reports  # noqa: PLC0415

    question = {
        "odometer": odometer,
        "conditions": dict(pair(text) for text in at),
        "consumption_per_km": consumption_per_km,
    }
    _found(derived_reports.remaining(config, vehicle, question, as_json=as_json), vehicle)


def planned_trip(
    vehicle: Vehicle,
    trip: Annotated[
        Path, typer.Argument(help="JSON as `POST …/planned-trip` takes it.", exists=True)
    ],
    config: Service,
    *,
    as_json: Json = False,
) -> None:
    """The voltage band along a planned trip (--json), and whether the battery lasts to its end."""
    from cloud.commands import derived_reports  # noqa: PLC0415

    _found(derived_reports.planned_trip(config, vehicle, trip, as_json=as_json), vehicle)


def pair(text: str) -> tuple[str, float]:
    """FEATURE=VALUE. Raises typer.BadParameter."""
    name, separator, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        separator = ""
    if not separator:
        raise typer.BadParameter(f"{text!r} is not FEATURE=VALUE", param_hint="--at")
    return name, number


def _found(is_found: bool, vehicle: str) -> None:  # noqa: FBT001
    if not is_found:
        sentence = f"There is no vehicle {vehicle!r} with a bundle of this service."
        typer.echo(f"twin-cloud: {sentence}", err=True)
        sys.exit(NOT_FOUND)
