"""`twin-cloud database`: its version, the way up from an older one, backup and restore.

Must never go down, nor write over anything: a database goes back by its backup.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from cloud.commands.command import REFUSED, Database, Json, end, require

database: Final = typer.Typer(
    help="The service's database: version, upgrades, backup and restore.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@database.command(
    epilog="""\b
Examples:
  twin-cloud database status --database twin.db
  twin-cloud database status --database postgresql://twin@db/twin --json
"""
)
def status(database: Database, *, as_json: Json = False) -> None:
    """Print the version of its tables and the one that this software knows (exit code 4: older)."""
    from cloud.commands.reports import show  # noqa: PLC0415  # the other commands start faster
    from cloud.store import migrations  # noqa: PLC0415
    from cloud.store.database import version_of  # noqa: PLC0415

    require(database)
    found = version_of(database)
    row = {"version": found, "known": migrations.HEAD, "is_newest": found == migrations.HEAD}
    show([row], list(row), as_json=as_json)
    if found != migrations.HEAD:
        end(f"{database} is older: stop the services and run `database upgrade`.", REFUSED)


@database.command(
    epilog="""\b
Examples:
  twin-cloud database upgrade --database postgresql://twin_owner@db/twin
  twin-cloud database upgrade --database twin.db
"""
)
def upgrade(database: Database) -> None:
    """Bring its tables up to date, or make them; all of it happens, or nothing.

    Back it up first: there is no way down. A SQLite file is upgraded by the service itself, too.
    """
    from cloud.store.database import upgrade as run  # noqa: PLC0415

    before, now = run(database)
    told = "made" if before is None else "newest already" if before == now else f"from {before}"
    typer.echo(f"{database}: version {now} ({told}).", err=True)


@database.command(
    epilog="""\b
Examples:
  twin-cloud database backup 2031-05-04.db --database twin.db
  twin-cloud database backup 2031-05-04.dump --database postgresql://twin_owner@db/twin
"""
)
def backup(file: Annotated[Path, typer.Argument()], database: Database) -> None:
    """Copy one state of the whole database into a new FILE, while services run."""
    from cloud.store.backup import backup as run  # noqa: PLC0415

    require(database)
    run(database, file)
    typer.echo(f"Backed up {database}.", err=True)
    typer.echo(str(file))


@database.command(
    epilog="""\b
Examples:
  twin-cloud database restore 2031-05-04.db --database restored.db
  twin-cloud database restore 2031-05-04.dump --database postgresql://twin_owner@db/restored
  twin-cloud verify --database restored.db --public-key keys/public.pem
"""
)
def restore(file: Annotated[Path, typer.Argument()], database: Database) -> None:
    """Fill an empty DATABASE, or a file that is not there, from a backup; `verify` it then."""
    from cloud.store.backup import restore as run  # noqa: PLC0415

    version = run(database, file)
    typer.echo(f"Restored {database}: version {version}. Now run `twin-cloud verify`.", err=True)
