"""The commands that look at what became of breaches, and ahead: over the API of a running service.

Must never compute: the service does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final

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

Vehicle = Annotated[str, typer.Argument(help="A vehicle's id.")]
MANY: Final = 50
NAMES: Final = ("breaches",)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command(epilog=BREACHES)(breaches)


BREACHES: Final = """\b
Examples:
  twin-cloud breaches V001
  twin-cloud breaches V001 --filter state=declined --json
"""


def breaches(
    vehicle: Vehicle,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List a vehicle's breaches and what became of each, the highest odometer first."""
    with service(server, key_file) as twin:
        asked = params_of(filters, limit=min(limit, 500))
        rows = rows_of(twin.list_breaches(vehicle, **asked), limit)
    columns = ["trip_id", "odometer", "odometer_unit", "error_v", "state", "brought", "reason"]
    _show(rows, [*columns, "received_at", "message_id"], as_json=as_json)


def _show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    from cloud.commands.reports import show  # noqa: PLC0415  # the other commands start faster

    show(rows, columns, as_json=as_json)
