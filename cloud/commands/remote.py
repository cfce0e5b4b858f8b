"""What commands that ask a running service share: its address, the key, and how its answers end.

Must never show the key, nor read it from the command line, where others see it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cloud.commands.command import FAILED, NOT_FOUND, REFUSED, UNREACHABLE, USAGE, end

if TYPE_CHECKING:
    from pydantic import BaseModel

    from cloud.client import TwinClient

KEY_VARIABLE: Final = "TWIN_API_KEY"

Server = Annotated[
    str, typer.Option("--server", envvar="TWIN_SERVER", help="Where the service's API answers.")
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", help=f"A file with the API key [default: ${KEY_VARIABLE}]."),
]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", metavar="NAME=VALUE", help="As the API has it; may be repeated."),
]
Limit = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Ask whether it would be taken; change nothing.")
]
LOCAL: Final = "http://127.0.0.1:8080"


@contextmanager
def service(server: str, key_file: Path | None) -> Iterator[TwinClient]:
    """A client; what the service refuses ends the command with its sentence and exit code."""
    from pydantic import ValidationError  # noqa: PLC0415  # the other commands start faster

    from cloud.client import TwinClient, errors  # noqa: PLC0415

    try:
        with TwinClient(server, _key(key_file)) as twin:
            yield twin
    except errors.ServiceUnreachableError as error:
        end(str(error), UNREACHABLE)
    except errors.NotThereError as error:
        end(str(error), NOT_FOUND)
    except ValidationError as error:
        first = error.errors()[0]
        end(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", USAGE)
    except (errors.WrongQuestionError, errors.NoSuchListError) as error:
        end(str(error), USAGE)
    except (errors.NotAllowedError, errors.ContradictionError) as error:
        end(str(error), REFUSED)
    except errors.ProblemAnswerError as error:
        end(str(error), FAILED)


def params_of(filters: Iterable[str] | None, **more: object) -> dict[str, object]:
    """The question to the API; ends with USAGE where one is no NAME=VALUE."""
    found = dict(more)
    for one in filters or ():
        name, equals, value = one.partition("=")
        if not equals:
            end(f"--filter {one!r} is no NAME=VALUE.", USAGE)
        found[name] = value
    return found


def rows_of(items: Iterable[Any], limit: int) -> list[Mapping[str, Any]]:
    """The first of a list, as dictionaries."""
    rows: list[Mapping[str, Any]] = []
    for item in items:
        rows.append(item.model_dump(mode="json"))
        if len(rows) == limit:
            break
    return rows


def show_rows(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """A table for people, a list for programs."""
    from cloud.commands.reports import show  # noqa: PLC0415  # the other commands start faster

    show(rows, columns, as_json=as_json)


def show_one(item: BaseModel, columns: Sequence[str], *, as_json: bool) -> None:
    """A table of one row for people, an object for programs."""
    if as_json:
        typer.echo(item.model_dump_json(indent=2))
    else:
        show_rows([item.model_dump(mode="json")], columns, as_json=False)


def say_dry_run(dry_run: bool) -> None:  # noqa: FBT001
    """What is shown has not happened."""
    if dry_run:
        typer.echo("Dry run: it would be taken like this; nothing is changed.", err=True)


def _key(key_file: Path | None) -> str | None:
    if key_file is None:
        return os.environ.get(KEY_VARIABLE)
    try:
        return key_file.read_text(encoding="utf-8").strip()
    except OSError as error:
        end(f"The key in {key_file} cannot be read ({error.strerror}).", FAILED)
