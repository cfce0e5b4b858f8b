"""`twin-cloud approvals`, `approve`, `reject`, `orders`: what waits for a word, what came of it.

Must never open a database: the running service decides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from cloud.commands.command import Json
from cloud.commands.remote import (
    LOCAL,
    DryRun,
    Filters,
    KeyFile,
    Limit,
    Reason,
    Server,
    params_of,
    rows_of,
    say_dry_run,
    service,
    show_one,
    show_rows,
)

if TYPE_CHECKING:
    from cloud.client import TwinClient

Vehicle = Annotated[str, typer.Argument(help="A vehicle's id.")]
Number = Annotated[int, typer.Argument(help="The revision's number.", min=1)]
MANY: Final = 50
NAMES: Final = ("approvals", "approve", "reject", "orders")
DECIDED: Final = ("vehicle_id", "revision", "approval", "made_at", "odometer", "decided_by", "why")
EXAMPLES: Final = {
    "approvals": """\b
Examples:
  twin-cloud approvals
  twin-cloud approve V001 4 --reason "the error after it is plausible"
""",
    "approve": """\b
Examples:
  twin-cloud approve V001 4 --reason "the error after it is plausible"
  twin-cloud approve V001 4 --reason "a look" --dry-run
""",
    "reject": """\b
Example:
  twin-cloud reject V001 4 --reason "the current sensor is broken"
""",
    "orders": """\b
Examples:
  twin-cloud orders --filter vehicle_id=V001
  twin-cloud orders --id roll_back-12 --json
""",
}


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (approvals, approve, reject, orders):
        app.command(epilog=EXAMPLES[command.__name__])(command)


def approvals(
    server: Server = LOCAL, key_file: KeyFile = None, limit: Limit = MANY, *, as_json: Json = False
) -> None:
    """List revisions that wait for an operator, the latest first."""
    with service(server, key_file) as twin:
        rows = rows_of(twin.list_approvals(limit=min(limit, 500)), limit)
    show_rows(rows, DECIDED[:5], as_json=as_json)


def approve(
    vehicle: Vehicle,
    number: Number,
    reason: Reason,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let a revision be pushed that waits."""
    with service(server, key_file) as twin:
        _decide(twin, "approve", vehicle, number, reason, dry_run=dry_run, as_json=as_json)


def reject(
    vehicle: Vehicle,
    number: Number,
    reason: Reason,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Keep a revision from ever being pushed that waits."""
    with service(server, key_file) as twin:
        _decide(twin, "reject", vehicle, number, reason, dry_run=dry_run, as_json=as_json)


def orders(
    order_id: Annotated[str | None, typer.Option("--id", help="This one alone.")] = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    as_json: Json = False,
) -> None:
    """List what was ordered, the latest first: waiting, done with its revision, refused and why."""
    columns = ["id", "vehicle_id", "state", "ordered_at", "ordered_by", "why", "revision"]
    with service(server, key_file) as twin:
        if order_id is not None:
            show_one(twin.get_order(order_id), [*columns, "problem"], as_json=as_json)
            return
        asked = params_of(filters, limit=min(limit, 500))
        rows = rows_of(twin.list_orders(**asked), limit)
    show_rows(rows, [*columns, "problem"], as_json=as_json)


def _decide(
    twin: TwinClient,
    verdict: Literal["approve", "reject"],
    vehicle: str,
    number: int,
    reason: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from cloud.api.operator_schemas import Verdict  # noqa: PLC0415  # others start faster

    decide = twin.approve if verdict == "approve" else twin.reject
    done = decide(vehicle, number, Verdict(why=reason), dry_run=dry_run)
    say_dry_run(dry_run)
    show_one(done, DECIDED, as_json=as_json)
