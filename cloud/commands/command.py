"""What the commands of `twin-cloud` share: exit codes, common options, and how one ends early.

Must never print on stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cloud.errors import StoreError

DONE, FAILED, USAGE, NOT_FOUND, REFUSED, UNREACHABLE = range(6)

Database = Annotated[Path, typer.Option("--database", help="The service's SQLite file.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]


def require(database: Path) -> None:
    """End with NOT_FOUND unless there is such a file."""
    if not database.exists():
        error = StoreError(database, "there is no such file", "Give the service's [store] path.")
        end(str(error), NOT_FOUND)


def end(sentence: str, code: int) -> NoReturn:
    """Say why on stderr, and exit."""
    typer.echo(f"twin-cloud: {sentence}", err=True)
    sys.exit(code)
