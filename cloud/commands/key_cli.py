"""`twin-cloud keys` and `roll-back`: what an operator says about keys, and about a bad revision.

Must never send anything: the service does, from what is written here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cloud.commands.command import NOT_FOUND, REFUSED, Database, Json, end, require
from cloud.errors import KeyOrderError, RollBackError
from common.errors import KeyFileError

keys = typer.Typer(
    help="Make and show signing keys, and say which ones vehicles believe.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
SignedBy = Annotated[
    Path, typer.Option("--signed-by", help="A private key that vehicles believe in this matter.")
]
Why = Annotated[str, typer.Option("--why", help="In a few words.")]


@keys.command("create")
def create_keys(
    out: Annotated[Path, typer.Option("--out", help="Folder for the two files.")],
) -> None:
    """Write a new key pair, private.pem and public.pem, and print its id. Overwrites nothing."""
    from common.signing import create_key_pair  # noqa: PLC0415

    name = create_key_pair(out / "private.pem", out / "public.pem")
    typer.echo(f"Wrote {out / 'private.pem'} and {out / 'public.pem'}; the key's id:", err=True)
    typer.echo(name)


@keys.command("show")
def show_key(
    path: Annotated[Path, typer.Argument(help="A public or private key (PEM).")],
) -> None:
    """Print the id of a key, as it stands in every revision that it signs."""
    from common.signing import key_id, load_private_key, load_public_key  # noqa: PLC0415

    if not path.exists():
        end(f"There is no key file {path}.", NOT_FOUND)
    try:
        public = load_public_key(path)
    except KeyFileError:
        public = load_private_key(path).public_key()
    typer.echo(key_id(public))


@keys.command(
    epilog="""\b
Example:
  twin-cloud keys create --out keys-2
  twin-cloud keys rotate --new keys-2/public.pem --signed-by keys/private.pem --database twin.db
"""
)
def rotate(
    database: Database,
    signed_by: SignedBy,
    new: Annotated[Path, typer.Option("--new", help="The public key (PEM) that may sign, too.")],
    why: Why = "",
) -> None:
    """Let vehicles believe another key as well; the service publishes the statement."""
    from cloud.commands import key_reports  # noqa: PLC0415

    require(database)
    try:
        number = key_reports.rotate(database, signed_by, new, why, time.time())
    except KeyOrderError as error:
        end(str(error), REFUSED)
    typer.echo("Once vehicles have it, give the new key in [keys] private and restart.", err=True)
    typer.echo(f"statement {number}")


@keys.command(
    epilog="""\b
Example:
  twin-cloud keys revoke 0123456789abcdef --signed-by keys-2/private.pem --database twin.db
"""
)
def revoke(key_id: str, database: Database, signed_by: SignedBy, why: Why = "") -> None:
    """Let vehicles never believe a key again; the service publishes the statement."""
    from cloud.commands import key_reports  # noqa: PLC0415

    require(database)
    try:
        number = key_reports.revoke(database, signed_by, key_id, why, time.time())
    except KeyOrderError as error:
        end(str(error), REFUSED)
    typer.echo(f"statement {number}")


@keys.command("list")
def list_keys(database: Database, *, as_json: Json = False) -> None:
    """List every key that may sign or may not any more, and how many vehicles know it."""
    from cloud.commands import key_reports  # noqa: PLC0415

    require(database)
    key_reports.list_keys(database, as_json=as_json)


def roll_back(
    vehicle: str,
    database: Database,
    to: Annotated[int, typer.Option("--to", help="The revision whose content is wanted again.")],
    by: Annotated[str, typer.Option("--by", help="Who says so.")],
    why: Why = "",
) -> None:
    """Send an earlier revision's content again, as a new revision with a higher number."""
    from cloud.commands import key_reports  # noqa: PLC0415

    require(database)
    try:
        key_reports.order_roll_back(database, vehicle, to, by, why, time.time())
    except RollBackError as error:
        end(str(error), REFUSED)
    typer.echo(f"Ordered: revision {to} again; the service carries it out.", err=True)
