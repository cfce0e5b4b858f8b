"""`twin-cloud alarms` and `webhooks`: what needs somebody's attention, and who is told of it.

Must never open a database: the running service decides.
"""

from __future__ import annotations

from typing import Annotated, Final

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

alarms = typer.Typer(
    help="Alarms: one for each vehicle and type, cleared by the service when its cause is gone.",
    rich_markup_mode=None,
    epilog="""\b
Examples:
  twin-cloud alarms --filter state=active --filter acknowledged=false
  twin-cloud alarms --watch
  twin-cloud alarms acknowledge 3 --reason "pack is ordered" --assignee workshop
""",
)
webhooks = typer.Typer(
    help="Webhooks: events carried to an address, signed, in order.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
AlarmId = Annotated[int, typer.Argument(help="The alarm's id.")]
WebhookId = Annotated[int, typer.Argument(help="The webhook's id.")]
MANY: Final = 50
ALARM: Final = (
    "id",
    "vehicle_id",
    "type",
    "severity",
    "state",
    "acknowledged",
    "raised_at",
    "times",
    "assignee",
    "reason",
)
WEBHOOK: Final = ("id", "url", "kinds", "cohort", "made_by", "made_at", "why")


@alarms.callback(invoke_without_command=True)
def list_alarms(
    context: typer.Context,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    filters: Filters = None,
    limit: Limit = MANY,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Those that are on, then each change as it happens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List alarms, the last raised first (vehicle_id=, type=, state=, acknowledged=)."""
    if context.invoked_subcommand is not None:
        return
    from cloud.commands.following import follow  # noqa: PLC0415  # the other commands start faster

    with service(server, key_file) as twin:
        after = twin.newest_event() if watch else ""
        own = {"state": "active"} if watch else {}
        asked = {**own, **params_of(filters, limit=min(limit, 500))}
        rows = rows_of(twin.list_alarms(**asked), limit)
        show_rows(rows, ALARM, as_json=as_json)
        if watch:
            follow(twin, after, as_json=as_json, kind="alarm.", vehicle_id=asked.get("vehicle_id"))


@alarms.command(
    epilog="""\b
Example:
  twin-cloud alarms acknowledge 3 --reason "pack is ordered" --assignee workshop
"""
)
def acknowledge(
    alarm: AlarmId,
    reason: Reason,
    assignee: Annotated[str | None, typer.Option(help="Who looks after it.")] = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Say that somebody knows of an alarm; the reason becomes its comment."""
    from cloud.api.operator_schemas import AlarmAcknowledgement  # noqa: PLC0415

    with service(server, key_file) as twin:
        told = AlarmAcknowledgement(why=reason, assignee=assignee)
        done = twin.acknowledge(alarm, told, dry_run=dry_run)
    say_dry_run(dry_run)
    show_one(done, ALARM, as_json=as_json)


@webhooks.command("list")
def list_webhooks(
    server: Server = LOCAL, key_file: KeyFile = None, *, as_json: Json = False
) -> None:
    """All webhooks; their secrets are not shown."""
    with service(server, key_file) as twin:
        rows = rows_of(twin.list_webhooks(), MANY * 10)
    show_rows(rows, WEBHOOK, as_json=as_json)


@webhooks.command(
    epilog="""\b
Examples:
  twin-cloud webhooks add https://hooks.example.org/twin --kind alarm. --reason on-call > secret
  twin-cloud webhooks add https://hooks.example.org/twin --cohort pilot --reason pilot --dry-run
"""
)
def add(  # noqa: PLR0913  # each is an option
    url: Annotated[str, typer.Argument(help="Where to; https.")],
    reason: Reason,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--kind", help="A kind, or a family (`alarm.`); again for more [all]."),
    ] = None,
    cohort: Annotated[str | None, typer.Option(help="Of this cohort alone [all].")] = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Carry events to an address, and print the secret that signs them; it is shown this once."""
    from cloud.api.operator_schemas import NewWebhook  # noqa: PLC0415

    with service(server, key_file) as twin:
        told = NewWebhook(url=url, kinds=kinds or None, cohort=cohort, why=reason)
        made = twin.make_webhook(told, dry_run=dry_run)
    if dry_run:
        say_dry_run(dry_run)
        return
    if as_json:
        show_one(made, WEBHOOK, as_json=True)
        return
    typer.echo(f"Webhook {made.id}: nobody can show its secret again.", err=True)
    typer.echo(made.secret)


@webhooks.command(
    epilog="""\b
Example:
  twin-cloud webhooks remove 2 --reason "it has moved"
"""
)
def remove(
    webhook: WebhookId,
    reason: Reason,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Carry nothing more to it; what is on its way is dropped."""
    with service(server, key_file) as twin:
        twin.delete_webhook(webhook, reason, dry_run=dry_run)
    say_dry_run(dry_run)
    if not dry_run:
        typer.echo(f"Webhook {webhook} is removed.", err=True)
