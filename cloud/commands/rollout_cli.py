"""`twin-cloud bundles`: the registry of a running service, over its API.

Must never open a database: `twin-cloud bundle` does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from cloud.commands.command import FAILED, Json, end
from cloud.commands.remote import LOCAL, KeyFile, Server, rows_of, service

MANY: Final = 1000
Reason = Annotated[str, typer.Option("--reason", help="In a few words; it stands in the audit.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show, but change nothing.")]

bundles = typer.Typer(
    help="The bundles that a service knows, and one more.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


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
