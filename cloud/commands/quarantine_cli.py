"""`twin-cloud quarantine`: refused messages, and taking them in again.

Must never write to the database: the service does, when it is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cloud.commands.command import FAILED, USAGE, Database, Json, end, require
from cloud.commands.remote import LOCAL, KeyFile, Server, service

if TYPE_CHECKING:
    from cloud.client import TwinClient

quarantine = typer.Typer(
    help="Refused messages with their reasons; `retry` takes them in again.",
    rich_markup_mode=None,
    invoke_without_command=True,
)


@quarantine.callback(
    epilog="""\b
Examples:
  twin-cloud quarantine --database twin.db
  twin-cloud quarantine retry 17 --why "the bundle's folder was missing"
"""
)
def listed(context: typer.Context, database: Database = None, *, as_json: Json = False) -> None:  # type: ignore[assignment]  # required below
    """List the refused messages with their reasons; the latest first."""
    if context.invoked_subcommand is not None:
        return
    if database is None:
        end("quarantine: give --database, or a command (`retry`)", USAGE)
    from cloud.commands import reports  # noqa: PLC0415  # the other commands start faster

    require(database)
    reports.quarantine(database, as_json=as_json)


@quarantine.command(
    epilog="""\b
Examples:
  twin-cloud quarantine retry 17 18 --why "the bundle's folder was missing"
  twin-cloud quarantine retry --all --why "calibration mended in 0.5.1"
"""
)
def retry(
    numbers: Annotated[list[int] | None, typer.Argument(help="As the list names them.")] = None,
    why: Annotated[str, typer.Option("--why", help="In a few words; kept in the audit.")] = "again",
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every message there is.")] = False,
) -> None:
    """Take messages in again; what is refused again stays, with the reason (exit code 1)."""
    if bool(numbers) == everything:
        end("quarantine retry: give numbers, or --all", USAGE)
    with service(server, key_file) as twin:
        wanted = [one.id for one in twin.list_quarantine()] if everything else numbers or []
        stayed = [number for number in sorted(wanted) if not _took(twin, number, why)]
    if stayed:
        end(f"{len(stayed)} of {len(wanted)} messages stay in the quarantine", FAILED)


def _took(twin: TwinClient, number: int, why: str) -> bool:
    """In the order in which they came, so that a vehicle's breaches keep theirs."""
    from cloud.api.operator_schemas import Verdict  # noqa: PLC0415
    from cloud.client.errors import ContradictionError, NotThereError  # noqa: PLC0415

    try:
        twin.retry_message(number, Verdict(why=why))
    except (ContradictionError, NotThereError) as error:
        typer.echo(f"{number}: {error}", err=True)
        return False
    typer.echo(str(number))
    return True
