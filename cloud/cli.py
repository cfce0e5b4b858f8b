"""`twin-cloud`: the command line of the service.

Must never print anything but data on stdout; messages go to stderr.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Final

import typer

from cloud.commands import (
    alert_cli,
    api_key_cli,
    audit_cli,
    aws_cli,
    bundle_cli,
    ca_cli,
    cohort_cli,
    database_cli,
    decision_cli,
    derived_cli,
    fleet_cli,
    foresight_cli,
    key_cli,
    maintenance_cli,
    quarantine_cli,
    reading_cli,
    replay_cli,
    role_cli,
    rollout_cli,
    traces_cli,
)
from cloud.commands.command import (
    DONE,
    FAILED,
    NOT_FOUND,
    REFUSED,
    USAGE,
    Database,
    Json,
    end,
    require,
)
from common.errors import KeyFileError, QuestionError, TwinError

EPILOG: Final = """\b
Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 unreachable.
\b
Examples:
  twin-cloud keys create --out keys
  twin-cloud serve --config twin-cloud.toml
"""
FLEET: Final = ("fleet-prior", "battery-replaced", "roll-back")
AUDIT: Final = ("verify", "heads", "audit", "reproduce", "recalibrate", "pin", "unpin", "lineage")
OPERATOR: Final = ("cohort", "policy", "alarms", "webhooks")
DERIVED: Final = ("health", "forecast", "range", "planned-trip")
TRAINING: Final = ("train", "sensitivity", "import-model")

app = typer.Typer(
    help="The cloud side of the living twin.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(key_cli.keys, name="keys")
app.add_typer(api_key_cli.api_keys, name="api-keys")
app.add_typer(ca_cli.ca, name="ca")
app.add_typer(fleet_cli.fleet_prior, name="fleet-prior")
app.add_typer(bundle_cli.bundle, name="bundle")
app.add_typer(rollout_cli.bundles, name="bundles")
app.add_typer(rollout_cli.rollout, name="rollout")
app.add_typer(quarantine_cli.quarantine, name="quarantine")
app.add_typer(aws_cli.aws, name="aws")
app.add_typer(maintenance_cli.maintenance, name="maintenance")
app.add_typer(database_cli.database, name="database")
app.add_typer(traces_cli.traces, name="traces")
app.add_typer(cohort_cli.cohort, name="cohort")
app.add_typer(cohort_cli.policy, name="policy")
app.add_typer(alert_cli.alarms, name="alarms")
app.add_typer(alert_cli.webhooks, name="webhooks")


def main() -> int:
    """Run the command line; an error of the project becomes one sentence and an exit code."""
    # More threads do not help matrices so small, and the last bits depend on their number.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _add_training(sys.argv[1:])
    try:
        app(prog_name="twin-cloud")
    except TwinError as error:
        typer.echo(f"twin-cloud: {error}", err=True)
        if isinstance(error, QuestionError):
            return USAGE
        exists = isinstance(error, KeyFileError) and "exists" in error.problem
        return REFUSED if exists else FAILED
    except ModuleNotFoundError as error:
        typer.echo(f"twin-cloud: {_missing_extra(error)}", err=True)
        return FAILED
    return DONE


@app.command()
def history(vehicle: str, database: Database, *, as_json: Json = False) -> None:
    """List a vehicle's revisions: cause, errors, verdict; the newest first."""
    from cloud.commands import reports  # noqa: PLC0415

    require(database)
    if not reports.history(database, vehicle, as_json=as_json):
        end(f"There is no vehicle {vehicle!r} in {database}.", NOT_FOUND)


audit_cli.register(app)
replay_cli.register(app)


@app.command(
    epilog="""\b
Examples:
  twin-cloud doctor --database twin.db
  twin-cloud doctor --database twin.db --url http://127.0.0.1:8080 --json
"""
)
def doctor(
    database: Database,
    url: Annotated[
        str | None, typer.Option("--url", help="The service's address, to ask it as well.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Whether the service keeps up: lag, rates, outboxes, broker, migrations (problem: code 1)."""
    from cloud.commands.doctor import doctor as look  # noqa: PLC0415

    require(database)
    if not look(database, url, time.time(), as_json=as_json):
        sys.exit(FAILED)


role_cli.register(app)
derived_cli.register(app)
reading_cli.register(app)
decision_cli.register(app)
foresight_cli.register(app)
app.command(
    "battery-replaced",
    epilog="""\b
Example:
  twin-cloud battery-replaced car-7 --by workshop --database twin.db
""",
)(fleet_cli.battery_replaced)
app.command(
    "roll-back",
    epilog="""\b
Example:
  twin-cloud roll-back car-7 --to 3 --by "fleet desk" --database twin.db
""",
)(key_cli.roll_back)

app.command(
    "enroll",
    epilog="""\b
Examples:
  twin-cloud enroll vehicle-0001 --csr vehicle.csr --out vehicle.crt --ca ca
  twin-cloud enroll twin-cloud --service --out twin-cloud.crt --ca ca
  twin-cloud enroll broker.example.com --broker --out broker.crt --ca ca
""",
)(ca_cli.enroll)


def _add_training(arguments: list[str]) -> None:
    """Training needs heavy libraries: load it only where it is asked for, or listed."""
    own = {
        *role_cli.ROLES,
        "keys",
        "api-keys",
        "ca",
        "enroll",
        "history",
        "quarantine",
        "bundle",
        "bundles",
        "rollout",
        "database",
        "traces",
        *AUDIT,
        "doctor",
        *DERIVED,
        *reading_cli.NAMES,
        *decision_cli.NAMES,
        *OPERATOR,
        *foresight_cli.NAMES,
        *FLEET,
    }
    if arguments and arguments[0] in own:
        return
    try:
        from cloud.training.cli import register  # noqa: PLC0415
    except ImportError as error:
        for name in TRAINING:
            _add_missing(name, error)
    else:
        register(app)


def _add_missing(name: str, cause: ImportError) -> None:
    @app.command(
        name,
        help="(needs the `train` extra: pip install 'living-twin[train]')",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
    def missing() -> None:
        end(f"{name}: {_missing_extra(cause)}", FAILED)


def _missing_extra(cause: ImportError) -> str:
    return f"a library is missing ({cause}): pip install 'living-twin[cloud,train]'"


if __name__ == "__main__":
    sys.exit(main())
