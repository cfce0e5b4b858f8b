"""`twin-cloud maintenance`: what is due, and a person's word on it, over a service's API.

Must never decide what is due: the service does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cloud.commands.command import Json
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
    from pydantic import BaseModel

    from cloud.client import TwinClient

MANY: Final = 50
Task = Annotated[int, typer.Argument(help="A task's number, as `list` shows it.")]
Vehicle = Annotated[str, typer.Argument(help="A vehicle's id.")]
Why = Annotated[str, typer.Option("--why", help="The reason, in a few words.")]
By = Annotated[
    str | None, typer.Option("--by", help="Who says so, where the service authenticates nobody.")
]
Date = Annotated[
    datetime, typer.Option("--due", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="In UTC.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and answer, but change nothing.")]

maintenance = typer.Typer(
    help="What is due on which vehicle: proposed by forecasts, scheduled by people.",
    no_args_is_help=True,
    rich_markup_mode=None,
    epilog="""\b
Examples:
  twin-cloud maintenance list --filter within_days=365
  twin-cloud maintenance schedule 7 --due 2027-03-01 --why "slot in March"
""",
)


@maintenance.command("list")
def list_tasks(
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List open tasks, the earliest due first (within_days=, cohort=, state=, kind=)."""
    with service(server, key_file) as twin:
        found = twin.list_maintenance(**params_of(filters, limit=min(limit, 500)))
        rows = rows_of(found, limit)
    _show(rows, as_json=as_json)


@maintenance.command()
def history(
    vehicle: Vehicle,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List every task that a vehicle has or had, the newest first."""
    with service(server, key_file) as twin:
        rows = rows_of(twin.list_vehicle_maintenance(vehicle), limit)
    _show(rows, as_json=as_json)


@maintenance.command()
def add(  # noqa: PLR0913  # each is an option
    vehicle: Vehicle,
    kind: Annotated[str, typer.Argument(help="What kind of task, a word.")],
    due: Date,
    why: Why,
    by: By = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Schedule something of any kind."""
    from cloud.api.maintenance_schemas import NewTask  # noqa: PLC0415

    told = {"kind": kind, "due_at": due.replace(tzinfo=UTC), "why": why, "by": by}
    with _told(NewTask, told, server, key_file) as (twin, wanted):
        _say(twin.add_task(vehicle, wanted, dry_run=dry_run))


@maintenance.command()
def schedule(
    task: Task,
    due: Date,
    why: Why,
    by: By = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Set the date of an open task."""
    from cloud.api.maintenance_schemas import Planned  # noqa: PLC0415

    told = {"due_at": due.replace(tzinfo=UTC), "why": why, "by": by}
    with _told(Planned, told, server, key_file) as (twin, wanted):
        _say(twin.schedule_task(task, wanted, dry_run=dry_run))


@maintenance.command()
def done(
    task: Task,
    why: Why,
    by: By = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Say that a task was done."""
    from cloud.api.maintenance_schemas import TaskVerdict  # noqa: PLC0415

    with _told(TaskVerdict, {"why": why, "by": by}, server, key_file) as (twin, wanted):
        _say(twin.finish_task(task, wanted, dry_run=dry_run))


@maintenance.command()
def dismiss(
    task: Task,
    why: Why,
    by: By = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Say that a task is not needed."""
    from cloud.api.maintenance_schemas import TaskVerdict  # noqa: PLC0415

    with _told(TaskVerdict, {"why": why, "by": by}, server, key_file) as (twin, wanted):
        _say(twin.dismiss_task(task, wanted, dry_run=dry_run))


@maintenance.command()
def calendar(server: Server = LOCAL, key_file: KeyFile = None, filters: Filters = None) -> None:
    """Write open tasks as an iCalendar file to stdout (within_days=, cohort=)."""
    with service(server, key_file) as twin:
        sys.stdout.write(twin.get_calendar(**params_of(filters)).decode())


@contextmanager
def _told(
    kind: type[BaseModel], told: dict[str, Any], server: str, key_file: Any
) -> Iterator[tuple[TwinClient, Any]]:
    """A client and the body; what no body may say ends the command with code 2."""
    from pydantic import ValidationError  # noqa: PLC0415

    try:
        wanted = kind.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    with service(server, key_file) as twin:
        yield twin, wanted


def _say(task: Any) -> None:
    sentence = f"Task {task.id} of {task.vehicle_id} ({task.kind}) is {task.state}"
    typer.echo(f"{sentence}, due {task.due.value:%Y-%m-%d}.", err=True)


def _show(rows: list[Any], *, as_json: bool) -> None:
    from cloud.commands.reports import show  # noqa: PLC0415

    if not as_json:
        rows = [
            {
                **row,
                "due": row["due"]["value"],
                "due_low": row["due"]["low"],
                "due_high": row["due"]["high"],
                "due_odometer": row["due_odometer"]["value"],
            }
            for row in rows
        ]
    columns = ["id", "vehicle_id", "kind", "state", "due", "due_low", "due_high", "due_odometer"]
    show(rows, [*columns, "reason", "changed_by"], as_json=as_json)
