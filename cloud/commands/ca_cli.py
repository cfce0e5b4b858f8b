"""`twin-cloud ca` and `enroll`: certificates for vehicles, services and the broker.

They work on the authority's folder alone, on a machine that need not be the service's. Must never
print a private key, nor need the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from cloud.commands.command import NOT_FOUND, REFUSED, USAGE, Json, end
from cloud.errors import AuthorityError

ca = typer.Typer(
    help="The fleet's certificate authority for Mosquitto.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Folder = Annotated[Path, typer.Option("--ca", help="The authority's folder.")]
Reason = Literal["key_compromise", "superseded", "cessation_of_operation", "unspecified"]


@ca.command(
    epilog="""\b
Example:
  twin-cloud ca create --ca ca --name "Living twin fleet"
"""
)
def create(
    folder: Folder,
    name: Annotated[str, typer.Option("--name", help="Its common name.")] = "Living twin fleet",
) -> None:
    """Make an authority: ca.key (0600), ca.crt, ca.crl. Keep the folder off networked machines."""
    from cloud.security import certificate_authority  # noqa: PLC0415  # others start faster

    with _refusing():
        certificate_authority.create(folder, name, _now())
    typer.echo(f"Wrote {folder}: everybody needs its ca.crt, nobody else its ca.key.", err=True)


@ca.command(
    epilog="""\b
Example:
  twin-cloud ca revoke vehicle-0001 --reason key_compromise --ca ca
  twin-cloud ca publish --out /etc/mosquitto/twin --ca ca
"""
)
def revoke(
    name: str,
    folder: Folder,
    reason: Annotated[Reason, typer.Option("--reason", help="Put into the list.")] = "unspecified",
) -> None:
    """Revoke every certificate of a name; the broker refuses them once it has the new ca.crl."""
    from cloud.security import certificate_authority  # noqa: PLC0415

    with _refusing():
        count = certificate_authority.load(folder).revoke(name, reason, _now())
    typer.echo(f"Revoked {count}. Now: twin-cloud ca publish; reload the broker.", err=True)


@ca.command(
    epilog="""\b
Example:
  twin-cloud ca publish --out /etc/mosquitto/twin --ca ca
"""
)
def publish(
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="The broker's folder.")],
) -> None:
    """Write what the broker needs of it: ca.crt, ca.crl, and twin.acl for every service."""
    from cloud.commands import ca_reports  # noqa: PLC0415

    with _refusing():
        written = ca_reports.publish(folder, out, _now())
    typer.echo(f"Wrote {', '.join(written)} in {out}.", err=True)


@ca.command("list")
def list_issued(folder: Folder, *, as_json: Json = False) -> None:
    """List every certificate that was issued, and whether it stands."""
    from cloud.commands import ca_reports  # noqa: PLC0415

    with _refusing():
        ca_reports.list_issued(folder, _now(), as_json=as_json)


def enroll(  # noqa: PLR0913  # each is an option
    name: Annotated[str, typer.Argument(help="A vehicle's id, a service's or a broker's name.")],
    folder: Folder,
    out: Annotated[Path, typer.Option("--out", help="Where its certificate goes.")],
    csr: Annotated[
        Path | None, typer.Option("--csr", help="Its request, as `edge-agent enroll` wrote it.")
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="Its validity.")] = 825,
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Another name or address of a broker.")
    ] = None,
    *,
    service: Annotated[bool, typer.Option("--service", help="It is a service.")] = False,
    broker: Annotated[bool, typer.Option("--broker", help="It is a broker.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Its key is a new one: revoke the old certificate.")
    ] = False,
) -> None:
    """Sign the request of a vehicle; or make key and certificate of a service or a broker."""
    from cloud.commands import ca_reports  # noqa: PLC0415
    from cloud.security.certificate_authority import Order  # noqa: PLC0415

    if service and broker:
        end("--service and --broker exclude each other.", USAGE)
    if csr is None and not (service or broker):
        end("a vehicle makes its own key: `edge-agent enroll` there, then --csr here.", USAGE)
    if csr is not None and not csr.exists():
        end(f"There is no request {csr}.", NOT_FOUND)
    kind = ca_reports.kind_of(service=service, broker=broker)
    with _refusing():
        order = Order(name, kind, days, tuple(host or ()))
        written = ca_reports.enroll(folder, order, csr, out, _now(), replace=replace)
    typer.echo(f"Wrote {', '.join(map(str, written))}.", err=True)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except AuthorityError as error:
        end(str(error), REFUSED)


def _now() -> datetime:
    return datetime.now(UTC)
