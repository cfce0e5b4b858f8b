"""The training commands of `twin-cloud`: train, sensitivity, import-model.

Parses options, prints results (data on stdout, messages on stderr) and gives exit codes. Must never
compute anything itself. The heavy libraries load when a command runs, not when the program starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from cloud.training import options
from cloud.training.errors import ImportRefusedError, OptionError, OutputExistsError
from common.errors import ModelContractError, TwinError

FAILED: Final = 1
USAGE: Final = 2
REFUSED: Final = 4

EXIT_CODES: Final = "Exit codes: 0 done, 1 failed, 2 usage, 4 refused (contract, --out occupied)."
TRAIN_EPILOG: Final = f"""\b
Examples:
  twin-cloud train runs/fleet/discharge_curves.parquet --target voltage_v \\
      --features distance_km,average_speed_m_s,load_kg --out runs/bundle
  twin-cloud train cell.csv --features discharged_ah,current_a --target voltage_v \\
      --trips first:8 --parameters gain:discharged_ah,offset:output --out runs/cell
{EXIT_CODES}
"""
SENSITIVITY_EPILOG: Final = f"""\b
Examples:
  twin-cloud sensitivity runs/bundle --select 3
  twin-cloud sensitivity runs/bundle --parameters gain:distance_km,offset:output --out runs/other
{EXIT_CODES}
"""
IMPORT_EPILOG: Final = f"""\b
Example:
  twin-cloud import-model keras.tflite --manifest manifest.json --out runs/foreign
{EXIT_CODES}
"""

Select = Annotated[int, typer.Option(min=1, help="Select up to N parameters by the rule.")]
Parameters = Annotated[str, typer.Option(help="Select exactly these candidates: a,b.")]
Samples = Annotated[int, typer.Option(help="Base samples at most, a power of two.")]
Prior = Annotated[
    list[str], typer.Option("--prior", help="NAME=STD, a parameter's prior standard deviation.")
]
RatePrior = Annotated[
    list[str], typer.Option("--rate-prior", help="NAME=STD of its ageing rate per odometer unit.")
]
ProcessNoise = Annotated[
    list[str], typer.Option("--process-noise", help="NAME=VARIANCE per odometer unit.")
]
RateProcessNoise = Annotated[
    list[str], typer.Option("--rate-process-noise", help="NAME=VARIANCE of the rate per unit.")
]
RateVolatility = Annotated[
    list[str],
    typer.Option("--rate-volatility", help="NAME=SHARE of the rate per square root of the unit."),
]
RateGrowth = Annotated[
    list[str], typer.Option("--rate-growth", help="NAME=GROWTH of the rate, per unit.")
]
TripStd = Annotated[
    list[str],
    typer.Option("--trip-std", help="NAME=STD from trip to trip [default: learned from the table]"),
]
MAX_SEED = 2**32 - 2
Bounds = Annotated[
    list[str], typer.Option("--bounds", help="NAME=LOW:HIGH, where a parameter must stay.")
]


def register(app: typer.Typer) -> None:
    """Add the training commands to `twin-cloud`."""
    app.command("train", epilog=TRAIN_EPILOG)(train)
    app.command("sensitivity", epilog=SENSITIVITY_EPILOG)(sensitivity)
    app.command("import-model", epilog=IMPORT_EPILOG)(import_model)


def train(  # noqa: PLR0913 - each option is one argument
    table: Annotated[Path, typer.Argument(help="CSV or Parquet table of trips, row by sample.")],
    features: Annotated[str, typer.Option(help="Columns that the model sees: a,b,c.")],
    target: Annotated[str, typer.Option(help="Column that it predicts.")],
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")],
    name: Annotated[str, typer.Option(help="Name of the model.")] = "voltage-model",
    trips: Annotated[str, typer.Option(help="first, first:N or all trips of a vehicle.")] = "first",
    moving_average: Annotated[
        list[str], typer.Option(help="NAME=SIGNAL:TAU_S, a feature computed on the way.")
    ] = [],  # noqa: B006 - typer copies it
    hidden: Annotated[str, typer.Option(help="Units of the hidden layers: 8,8.")] = "8,8",
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same model.")
    ] = 0,
    noise_std: Annotated[float, typer.Option(min=0.0, help="Measurement noise, V.")] = 0.01,
    threshold: Annotated[float, typer.Option(min=0.0, help="Error that is a breach, V.")] = 0.05,
    cutoff_voltage: Annotated[
        float | None, typer.Option(help="Empty battery, V [default: lowest in training]")
    ] = None,
    odometer_unit: Annotated[str, typer.Option(help="Unit of ageing.")] = "km",
    unit: Annotated[list[str], typer.Option(help="NAME=UNIT of a column.")] = [],  # noqa: B006
    plausible: Annotated[
        list[str], typer.Option("--range", help="NAME=MIN:MAX, plausible values of a column.")
    ] = [],  # noqa: B006
    health_sweep: Annotated[
        str | None,
        typer.Option(help="Feature that empties the battery [default: the one that grows]"),
    ] = None,
    reference: Annotated[
        list[str], typer.Option(help="FEATURE=VALUE while health is swept [default: means]")
    ] = [],  # noqa: B006
    select: Select = 2,
    parameters: Parameters = "",
    samples: Samples = 65_536,
    prior: Prior = [],  # noqa: B006
    rate_prior: RatePrior = [],  # noqa: B006
    process_noise: ProcessNoise = [],  # noqa: B006
    rate_process_noise: RateProcessNoise = [],  # noqa: B006
    rate_volatility: RateVolatility = [],  # noqa: B006
    rate_growth: RateGrowth = [],  # noqa: B006
    trip_std: TripStd = [],  # noqa: B006
    bounds: Bounds = [],  # noqa: B006
) -> None:
    """Train a bundle from a table of trips, rank and select its parameters.

    Columns vehicle_id and trip_id tell vehicles and trips apart; time_s is needed for moving
    averages. Whole trips are held out to measure the error.
    """
    with _told():
        from cloud.training import show  # noqa: PLC0415 - see the module's docstring
        from cloud.training.candidates import Overrides  # noqa: PLC0415
        from cloud.training.selection import Choice  # noqa: PLC0415
        from cloud.training.settings import TrainingSettings  # noqa: PLC0415
        from cloud.training.sobol import SobolSettings  # noqa: PLC0415
        from cloud.training.train import train_bundle  # noqa: PLC0415

        settings = TrainingSettings(
            features=options.parse_names(features),
            target=target,
            name=name,
            trips=options.parse_trip_choice(trips),
            moving_averages=options.parse_moving_averages(moving_average),
            hidden=options.parse_layers(hidden),
            seed=seed,
            noise_std_v=noise_std,
            error_threshold_v=threshold,
            cutoff_voltage_v=cutoff_voltage,
            odometer_unit=odometer_unit,
            units=options.parse_texts("unit", unit),
            ranges=options.parse_intervals("range", plausible),
            health_sweep=health_sweep,
            reference=options.parse_numbers("reference", reference),
            choice=Choice(select, options.parse_names(parameters)),
            sobol=SobolSettings(samples, seed),
            overrides=Overrides(
                prior_std=options.parse_numbers("prior", prior),
                bounds=options.parse_intervals("bounds", bounds),
                process_noise=options.parse_numbers("process-noise", process_noise),
                rate_prior_std=options.parse_numbers("rate-prior", rate_prior),
                rate_process_noise=options.parse_numbers("rate-process-noise", rate_process_noise),
                rate_volatility=options.parse_numbers("rate-volatility", rate_volatility),
                rate_growth=options.parse_numbers("rate-growth", rate_growth),
                trip_std=options.parse_numbers("trip-std", trip_std),
            ),
        )
        show.training(train_bundle(settings, table, out, datetime.now(UTC).date()))


def sensitivity(  # noqa: PLR0913 - each option is one argument
    bundle: Annotated[Path, typer.Argument(help="Bundle folder that `twin-cloud train` wrote.")],
    samples: Samples = 65_536,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="The same seed gives the same indices.")
    ] = 0,
    select: Select = 2,
    parameters: Parameters = "",
    out: Annotated[
        Path | None, typer.Option(help="Write a new bundle with this selection.")
    ] = None,
    prior: Prior = [],  # noqa: B006
    rate_prior: RatePrior = [],  # noqa: B006
    process_noise: ProcessNoise = [],  # noqa: B006
    rate_process_noise: RateProcessNoise = [],  # noqa: B006
    rate_volatility: RateVolatility = [],  # noqa: B006
    rate_growth: RateGrowth = [],  # noqa: B006
    trip_std: TripStd = [],  # noqa: B006
    bounds: Bounds = [],  # noqa: B006
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the indices as JSON.")] = False,
) -> None:
    """Rank inputs and candidate parameters by Sobol indices; say which are selected and why."""
    with _told():
        from cloud.training import show  # noqa: PLC0415 - see the module's docstring
        from cloud.training.bundle_writer import require_writable  # noqa: PLC0415
        from cloud.training.candidates import Overrides  # noqa: PLC0415
        from cloud.training.selection import Choice  # noqa: PLC0415
        from cloud.training.sobol import SobolSettings  # noqa: PLC0415
        from cloud.training.train import finish, rank_again  # noqa: PLC0415

        if out is not None:
            require_writable(out)
        overrides = Overrides(
            prior_std=options.parse_numbers("prior", prior),
            bounds=options.parse_intervals("bounds", bounds),
            process_noise=options.parse_numbers("process-noise", process_noise),
            rate_prior_std=options.parse_numbers("rate-prior", rate_prior),
            rate_process_noise=options.parse_numbers("rate-process-noise", rate_process_noise),
            rate_volatility=options.parse_numbers("rate-volatility", rate_volatility),
            rate_growth=options.parse_numbers("rate-growth", rate_growth),
            trip_std=options.parse_numbers("trip-std", trip_std),
        )
        choice = Choice(select, options.parse_names(parameters))
        ranked = rank_again(bundle, choice, SobolSettings(samples, seed), overrides)
        show.sensitivity(ranked[2].sensitivity, as_json=as_json)
        if out is not None:
            typer.echo(f"Wrote bundle {finish(*ranked, out).sha256[:12]} to {out}.", err=True)


def import_model(
    model: Annotated[Path, typer.Argument(help="A .tflite with inputs features, parameters.")],
    manifest: Annotated[Path, typer.Option(help="Its manifest; model_sha256 may be empty.")],
    out: Annotated[Path, typer.Option(help="Bundle folder to write.")],
) -> None:
    """Check somebody else's model against the contract, and make a bundle of it."""
    with _told():
        from cloud.training.import_model import import_model as checked  # noqa: PLC0415

        imported = checked(model, manifest, out)
        typer.echo(f"Wrote bundle {imported.sha256[:12]} to {out}.")


@contextmanager
def _told() -> Iterator[None]:
    """An error of the project becomes one sentence on stderr and an exit code."""
    try:
        yield
    except TwinError as error:
        typer.echo(f"twin-cloud: {error}", err=True)
        raise typer.Exit(_exit_code(error)) from error


def _exit_code(error: TwinError) -> int:
    if isinstance(error, OptionError):
        return USAGE
    refused = (OutputExistsError, ImportRefusedError, ModelContractError)
    return REFUSED if isinstance(error, refused) else FAILED
