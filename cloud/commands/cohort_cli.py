"""`twin-cloud cohort` and `policy`: which vehicles belong together, and what holds for them.

Must never open a database: the running service decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cloud.commands.command import USAGE, Json, end
from cloud.commands.remote import (
    LOCAL,
    DryRun,
    KeyFile,
    Limit,
    Reason,
    Server,
    rows_of,
    say_dry_run,
    service,
    show_one,
    show_rows,
)

if TYPE_CHECKING:
    from cloud.api.operator_schemas import PolicyItem

cohort = typer.Typer(
    help="Cohorts: every vehicle is in one.", no_args_is_help=True, rich_markup_mode=None
)
policy = typer.Typer(
    help="What holds for a cohort: approval, limits, alarms; every version is kept.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Cohort = Annotated[str, typer.Argument(help="A cohort's name.")]
MANY: Final = 1000
WHO: Final = ("cohort", "version", "changed_at", "changed_by", "why")
SETTINGS: Final = (
    "calibration",
    "calibrate_from_error_v",
    "refuse_above_error_v",
    "health_limit",
    "stale_after_days",
    "failures_in_a_row",
)


@cohort.command("list")
def list_cohorts(
    server: Server = LOCAL, key_file: KeyFile = None, *, as_json: Json = False
) -> None:
    """Every cohort with its size."""
    with service(server, key_file) as twin:
        rows = rows_of(twin.list_cohorts(), MANY)
    show_rows(rows, ["name", "vehicles", "online"], as_json=as_json)


@cohort.command(
    epilog="""\b
Examples:
  twin-cloud cohort assign winter V001 V002 --reason "they go north"
  twin-cloud cohort assign winter V001 --reason "it goes north" --dry-run
"""
)
def assign(
    name: Cohort,
    vehicles: Annotated[list[str], typer.Argument(help="Up to 1000 ids: all of them or none.")],
    reason: Reason,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put vehicles into a cohort; it is there as soon as it has one."""
    from cloud.api.operator_schemas import CohortAssignment  # noqa: PLC0415

    with service(server, key_file) as twin:
        told = CohortAssignment(vehicle_ids=vehicles, why=reason)
        done = twin.assign(name, told, dry_run=dry_run)
    say_dry_run(dry_run)
    show_one(done, ["cohort", "assigned", "already"], as_json=as_json)


@policy.command("show")
def show_policy(
    name: Cohort, server: Server = LOCAL, key_file: KeyFile = None, *, as_json: Json = False
) -> None:
    """The policy that holds; version 0 is what holds where nobody has said anything."""
    with service(server, key_file) as twin:
        found = twin.get_policy(name)
    _show_one(found, as_json=as_json)


@policy.command(
    "set",
    epilog="""\b
Examples:
  twin-cloud policy set pilot calibration=approval --reason "a pilot fleet"
  twin-cloud policy set pilot health_limit=0.75 refuse_above_error_v= --reason "older packs"
""",
)
def set_policy(
    name: Cohort,
    settings: Annotated[
        list[str],
        typer.Argument(metavar="SETTING=VALUE...", help="As the API has them; empty: none."),
    ],
    reason: Reason,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make the next version: what holds now, with these settings changed."""
    changes = dict(_pair(text) for text in settings)
    with service(server, key_file) as twin:
        made = twin.change_policy(name, changes, reason, dry_run=dry_run)
    say_dry_run(dry_run)
    _show_one(made, as_json=as_json)


@policy.command(
    epilog="""\b
Example:
  twin-cloud policy history pilot --limit 5
"""
)
def history(
    name: Cohort,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    limit: Limit = 50,
    *,
    as_json: Json = False,
) -> None:
    """Every version, the newest first: who made it, when and why."""
    with service(server, key_file) as twin:
        rows = rows_of(twin.list_policy_versions(name, limit=min(limit, 500)), limit)
    _show(rows, as_json=as_json)


def _show_one(item: PolicyItem, *, as_json: bool) -> None:
    if as_json:
        show_one(item, WHO, as_json=True)
    else:
        _show([item.model_dump(mode="json")], as_json=False)


def _show(rows: Sequence[Any], *, as_json: bool) -> None:
    flat = rows if as_json else [{**row, **row["policy"]} for row in rows]
    show_rows(flat, [*WHO, *SETTINGS], as_json=as_json)


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals:
        end(f"{text!r} is no SETTING=VALUE.", USAGE)
    return name, value or None
