"""`twin-cloud serve`, `ingest`, `worker` and `api`: the processes of the service.

Must never load them before one is asked for: the other commands start faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

ROLES: Final = ("serve", "ingest", "worker", "api")
Config = Annotated[Path, typer.Option("--config", help="The configuration (TOML).")]
Instance = Annotated[
    str | None,
    typer.Option(
        "--instance",
        help="A name that comes back after a restart: the broker keeps its messages for it. "
        "Without one the process gives its share of the messages up when it ends.",
    ),
]
HealthPort = Annotated[
    int | None,
    typer.Option("--health-port", min=0, max=65535, help="Instead of [health] port; 0: any."),
]


def serve(config: Config) -> None:
    """Ingest, calibrate, publish, and answer operators, until SIGTERM."""
    from cloud.roles.process import run  # noqa: PLC0415

    run(config, "serve")


def ingest(config: Config, instance: Instance = None, health_port: HealthPort = None) -> None:
    """Take vehicles' messages in, one of several (PostgreSQL), until SIGTERM."""
    from cloud.roles.process import run  # noqa: PLC0415

    run(config, "ingest", instance, health_port)


def worker(config: Config, health_port: HealthPort = None) -> None:
    """Calibrate and publish, one of several (PostgreSQL), until SIGTERM."""
    from cloud.roles.process import run  # noqa: PLC0415

    run(config, "worker", None, health_port)


def api(config: Config) -> None:
    """Answer operators, one of several (PostgreSQL), until SIGTERM."""
    from cloud.roles.process import run  # noqa: PLC0415

    run(config, "api")


def register(app: typer.Typer) -> None:
    """Add the four commands."""
    config = "--config /etc/twin-cloud/twin-cloud.toml"
    examples = {
        serve: ("serve --config twin-cloud.toml", f"serve {config} 2>> twin-cloud.log"),
        ingest: (f"ingest {config} --instance 1", f"ingest {config} --health-port 9101"),
        worker: (f"worker {config}",),
        api: (f"api {config}",),
    }
    for command, lines in examples.items():
        told = "".join(f"\n  twin-cloud {line}" for line in lines)
        app.command(epilog=f"\b\nExamples:{told}\n")(command)
