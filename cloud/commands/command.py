"""What the commands of `twin-cloud` share: exit codes, common options, and how one ends early.

Must never print on stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cloud.errors import StoreError
from cloud.location import Location, located

DONE, FAILED, USAGE, NOT_FOUND, REFUSED, UNREACHABLE = range(6)

if TYPE_CHECKING:
    Database = Location
else:  # typer knows no unions
    Database = Annotated[
        str,
        typer.Option(
            "--database",
            parser=located,
            metavar="FILE|URL",
            help="The service's SQLite file, or the postgresql:// URL of its database.",
        ),
    ]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]


def require(database: Location) -> None:
    """End with NOT_FOUND when it is a file that is not there."""
    if isinstance(database, Path) and not database.exists():
        error = StoreError(database, "there is no such file", "Give the service's [store] path.")
        end(str(error), NOT_FOUND)


def end(sentence: str, code: int) -> NoReturn:
    """Say why on stderr, and exit."""
    typer.echo(f"twin-cloud: {sentence}", err=True)
    sys.exit(code)
