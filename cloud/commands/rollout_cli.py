"""`twin-cloud bundles` and `rollout`: the registry and staged roll-outs, over a service's API.

Must never open a database: `twin-cloud bundle` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cloud.commands.command import FAILED, USAGE, Json, end
from cloud.commands.remote import LOCAL, KeyFile, Limit, Server, rows_of, service

MANY: Final = 1000
Reason = Annotated[str, typer.Option("--reason", help="In a few words; it stands in the audit.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show, but change nothing.")]

bundles = typer.Typer(
    help="The bundles that a service knows, and one more.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

rollout = typer.Typer(
    help="Bring a bundle to a fleet in stages, and halt by rules.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="The roll-out's name.")]


@bundles.command(
    "list",
    epilog="""\b
Example:
  twin-cloud bundles list --server https://twin.example.com --json
""",
)
def list_bundles(
    server: Server = LOCAL, key_file: KeyFile = None, *, as_json: Json = False
) -> None:
    """List bundles: name, size, how many vehicles run each, who added it and why."""
    from cloud.commands.reports import show  # noqa: PLC0415

    with service(server, key_file) as twin:
        rows = rows_of(twin.list_bundles(), MANY)
    columns = ["sha256", "name", "size_bytes", "vehicles", "configured", "kept", "added_at"]
    show(rows, [*columns, "added_by", "why"], as_json=as_json)


@bundles.command()
def show(sha256: str, server: Server = LOCAL, key_file: KeyFile = None) -> None:
    """Print a bundle with its manifest, as JSON."""
    with service(server, key_file) as twin:
        typer.echo(twin.get_bundle(sha256).model_dump_json(indent=2))


@bundles.command(
    epilog="""\b
Example:
  twin-cloud bundles add bundle-2 --reason "trained on winter trips"
"""
)
def add(
    folder: Path,
    reason: Reason,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
) -> None:
    """Upload the bundle in a folder; the service tries it as a vehicle would. Prints its id."""
    import base64  # noqa: PLC0415

    from cloud.api.bundle_schemas import BundleUpload  # noqa: PLC0415
    from common.bundle import load_bundle  # noqa: PLC0415

    bundle = load_bundle(folder)
    try:
        manifest = (folder / "manifest.json").read_bytes()
    except OSError as error:
        end(f"The manifest in {folder} cannot be read ({error.strerror}).", FAILED)
    told = BundleUpload(
        manifest=base64.b64encode(manifest).decode(),
        model=base64.b64encode(bundle.model).decode(),
        why=reason,
    )
    with service(server, key_file) as twin:
        typer.echo(twin.add_bundle(told, dry_run=dry_run).sha256)


@rollout.command(
    epilog="""\b
Examples:
  twin-cloud rollout start winter-2 --bundle SHA256 --cohort north --reason "cold trips" --dry-run
  twin-cloud rollout start winter-2 --bundle SHA256 --stage 5 --stage 100 --soak-hours 48 \\
      --reason "cold trips"
"""
)
def start(  # noqa: PLR0913  # each an option
    name: Name,
    bundle: Annotated[str, typer.Option("--bundle", help="The bundle's SHA-256.")],
    reason: Reason,
    cohort: Annotated[
        list[str] | None, typer.Option("--cohort", help="Whose vehicles; again for more [all].")
    ] = None,
    from_bundle: Annotated[
        str | None, typer.Option("--from", help="Only vehicles that run this bundle.")
    ] = None,
    stage: Annotated[
        list[float] | None, typer.Option("--stage", help="Percent; again [1, 10, 50, 100].")
    ] = None,
    soak_hours: Annotated[float, typer.Option("--soak-hours", min=0, help="Of each stage.")] = 24,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="NAME=VALUE", help="As the API has it; 'none': off."),
    ] = None,
    server: Server = LOCAL,
    key_file: KeyFile = None,
    *,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Begin a roll-out, or (--dry-run) show how many vehicles each stage has."""
    from pydantic import ValidationError  # noqa: PLC0415

    from cloud.api.rollout_schemas import RolloutStart  # noqa: PLC0415

    wanted: dict[str, Any] = {"name": name, "bundle": bundle, "why": reason}
    wanted |= {"cohorts": cohort or [], "from_bundle": from_bundle, "soak_s": soak_hours * 3600}
    wanted |= {"rules": _rules(rules)} | ({"stages_percent": stage} if stage else {})
    try:
        told = RolloutStart(**wanted)
    except ValidationError as error:
        first = error.errors()[0]
        end(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.", USAGE)
    with service(server, key_file) as twin:
        _show_one(twin.start_rollout(told, dry_run=dry_run), as_json=as_json)


@rollout.command("list")
def list_rollouts(
    server: Server = LOCAL, key_file: KeyFile = None, limit: Limit = 50, *, as_json: Json = False
) -> None:
    """List roll-outs, the one begun last first."""
    from cloud.commands.reports import show  # noqa: PLC0415

    with service(server, key_file) as twin:
        rows = rows_of(twin.list_rollouts(limit=min(limit, 500)), limit)
    columns = ["name", "state", "stage", "halt", "why", "changed_by", "changed_at", "bundle"]
    show(rows, columns, as_json=as_json)


@rollout.command("show")
def show_rollout(
    name: Name, server: Server = LOCAL, key_file: KeyFile = None, *, as_json: Json = False
) -> None:
    """Show how far a roll-out is: vehicles and answers by stage, errors with both bundles."""
    with service(server, key_file) as twin:
        _show_one(twin.get_rollout(name), as_json=as_json)


def _add(verb: str, method: str, told: str) -> None:
    @rollout.command(verb, help=told)
    def command(
        name: Name,
        reason: Reason,
        server: Server = LOCAL,
        key_file: KeyFile = None,
        *,
        dry_run: DryRun = False,
        as_json: Json = False,
    ) -> None:
        from cloud.api.operator_schemas import Verdict  # noqa: PLC0415

        with service(server, key_file) as twin:
            found = getattr(twin, method)(name, Verdict(why=reason), dry_run=dry_run)
            _show_one(found, as_json=as_json)


_add("pause", "pause_rollout", "Order for no further vehicle until it is resumed.")
_add("resume", "resume_rollout", "Go on; what has come so far halts it no more.")
_add("cancel", "cancel_rollout", "End it; vehicles that have the new bundle keep it.")
_add("roll-back", "roll_back_rollout", "End it, and bring the old bundle back where it was.")


def _rules(given: list[str] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in given or ():
        name, equals, value = one.partition("=")
        if not equals:
            end(f"--rule {one!r} is no NAME=VALUE.", USAGE)
        found[name] = None if value == "none" else value
    return found


def _show_one(found: Any, *, as_json: bool) -> None:
    from cloud.commands.reports import show  # noqa: PLC0415

    if as_json:
        typer.echo(found.model_dump_json(indent=2))
        return
    typer.echo(f"{found.name}: {found.state}, stage {found.stage}: {found.why}", err=True)
    rows = [one.model_dump() for one in found.stages]
    for row in rows:
        answers = row.pop("answers")
        row["answers"] = ", ".join(f"{n} {state}" for state, n in sorted(answers.items()))
    show(rows, ["percent", "planned", "ordered", "answers"], as_json=False)
