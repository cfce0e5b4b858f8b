"""`twin-cloud api-keys`: keys of the operator API, made on the database itself.

So that there is a first one: who can write the database needs none. Must never print a secret but
the one that it has just made, on stdout.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from cloud.commands.command import NOT_FOUND, REFUSED, Database, Json, end, require
from cloud.errors import ApiKeyError
from cloud.security.actors import Role

api_keys = typer.Typer(
    help="Make, list, rotate and revoke keys of the operator API.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_DAY_S, _HOUR_S = 86_400.0, 3_600.0


@api_keys.command(
    epilog="""\b
Examples:
  twin-cloud api-keys create --name me --role admin --database twin.db > api-key
  twin-cloud api-keys create --name grafana --cohort pilot --days 90 --database twin.db
"""
)
def create(
    database: Database,
    name: Annotated[str, typer.Option("--name", help="Whose it is; it stands in the audit.")],
    role: Annotated[Role, typer.Option("--role", help="What it may do.")] = "viewer",
    cohort: Annotated[
        list[str] | None, typer.Option("--cohort", help="Whose vehicles; again for more [all].")
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", min=0.001, max=36_500, help="It expires then [never].")
    ] = None,
) -> None:
    """Make a key and print it; it is shown this once. The database is made where there is none."""
    from cloud.commands import api_key_reports  # noqa: PLC0415  # the other commands start faster

    now = time.time()
    ends = None if days is None else now + days * _DAY_S
    wanted = api_key_reports.Wanted(name, role, cohort or None, ends)
    with _refusing():
        key_id, key = api_key_reports.create(database, wanted, now)
    typer.echo(f"Key {key_id} ({name}, {role}): nobody can show it again.", err=True)
    typer.echo(key)


@api_keys.command("list")
def list_keys(database: Database, *, as_json: Json = False) -> None:
    """List every key, revoked ones too: role, cohorts, times. Secrets are not stored."""
    from cloud.commands import api_key_reports  # noqa: PLC0415

    require(database)
    api_key_reports.list_keys(database, as_json=as_json)


@api_keys.command(
    epilog="""\b
Example:
  twin-cloud api-keys rotate 0123456789abcdef --overlap-hours 24 --database twin.db > api-key
"""
)
def rotate(
    key_id: str,
    database: Database,
    overlap_hours: Annotated[
        float, typer.Option("--overlap-hours", min=0, max=744, help="The old one works so long.")
    ] = 24.0,
) -> None:
    """Give a key another secret and print it; the old one works for a while beside it."""
    from cloud.commands import api_key_reports  # noqa: PLC0415

    require(database)
    with _refusing():
        key = api_key_reports.rotate(database, key_id, overlap_hours * _HOUR_S, time.time())
    if key is None:
        _end_unknown(key_id, database)
    typer.echo(key)


@api_keys.command(
    epilog="""\b
Example:
  twin-cloud api-keys revoke 0123456789abcdef --database twin.db
"""
)
def revoke(key_id: str, database: Database) -> None:
    """Let a key open nothing any more; a running service knows it within five seconds."""
    from cloud.commands import api_key_reports  # noqa: PLC0415

    require(database)
    if not api_key_reports.revoke(database, key_id, time.time()):
        _end_unknown(key_id, database)
    typer.echo(f"Key {key_id} is revoked.", err=True)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ApiKeyError as error:
        end(str(error), REFUSED)


def _end_unknown(key_id: str, database: object) -> NoReturn:
    end(f"There is no API key {key_id!r} in {database}.", NOT_FOUND)
