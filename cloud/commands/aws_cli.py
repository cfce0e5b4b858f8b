"""`twin-cloud aws`: vehicles in the registry of AWS IoT Core.

Must never print or write a private key: the device made it, and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer

from cloud.commands.command import FAILED, NOT_FOUND, REFUSED, UNREACHABLE, Json, end
from cloud.errors import AwsEnrolmentError
from common.errors import TopicError

NAMED: Final = "The stack's Name parameter (deploy/aws/stack.yaml)."
SERVICE: Final = "The stack's ClientId parameter: no vehicle's name may begin so."

T = TypeVar("T")
Name = Annotated[str, typer.Option("--name", help=NAMED)]
Service = Annotated[str, typer.Option("--service", help=SERVICE)]

aws = typer.Typer(
    help="Vehicles in AWS IoT Core's registry; credentials and region are those of AWS's tools.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@aws.command(
    epilog="""\b
Examples:
  edge-agent enroll --vehicle car-1
  twin-cloud aws enroll car-1 --request vehicle.csr --out vehicle.crt
"""
)
def enroll(
    vehicle_id: str,
    request: Annotated[Path, typer.Option("--request", help="The vehicle's request (PEM).")],
    out: Annotated[Path, typer.Option("--out", help="Where its certificate is written.")],
    as_json: Json = False,  # noqa: FBT002  # an option
    name: Name = "twin",
    service: Service = "twin-cloud",
) -> None:
    """Have AWS sign a vehicle's request, and let it do what a vehicle may. Again is no harm."""
    from cloud.security import aws_registry  # noqa: PLC0415

    pem = _read(request)
    done = _ask(
        lambda iot: aws_registry.enroll_vehicle(iot, vehicle_id, pem, f"{name}-vehicle", service)
    )
    _hand_out(done, out, as_json=as_json)


@aws.command(
    "enroll-service",
    epilog="""\b
Example:
  twin-cloud aws enroll-service twin-cloud --request service.csr --out service.crt
""",
)
def enroll_service(
    client_id: str,
    request: Annotated[Path, typer.Option("--request", help="The service's request (PEM).")],
    out: Annotated[Path, typer.Option("--out", help="Where its certificate is written.")],
    as_json: Json = False,  # noqa: FBT002  # an option
    name: Name = "twin",
) -> None:
    """The same for the service, which need not run with a role of AWS then."""
    from cloud.security import aws_registry  # noqa: PLC0415

    pem = _read(request)
    done = _ask(lambda iot: aws_registry.enroll(iot, client_id, pem, f"{name}-service"))
    _hand_out(done, out, as_json=as_json)


@aws.command(
    epilog="""\b
Example:
  twin-cloud aws expect car-2
"""
)
def expect(vehicle_id: str, service: Service = "twin-cloud") -> None:
    """Let a claim certificate ask for this vehicle's certificate, once."""
    from cloud.security import aws_registry  # noqa: PLC0415

    is_new = _ask(lambda iot: aws_registry.expect(iot, vehicle_id, service))
    typer.echo("expected" if is_new else "it was there already", err=True)


@aws.command(
    epilog="""\b
Examples:
  twin-cloud aws offboard car-1
  twin-cloud aws offboard car-1 --keep 0123456789abcdef...
"""
)
def offboard(
    vehicle_id: str,
    keep: Annotated[str | None, typer.Option("--keep", help="Id of the one to leave.")] = None,
) -> None:
    """Deactivate a vehicle's certificates (after a renewal: but one), and print their ids."""
    from cloud.security import aws_registry  # noqa: PLC0415

    for certificate_id in _ask(lambda iot: aws_registry.offboard(iot, vehicle_id, keep)):
        typer.echo(certificate_id)


def _read(request: Path) -> bytes:
    try:
        return request.read_bytes()
    except OSError as error:
        end(f"The request {request} cannot be read ({error.strerror}).", NOT_FOUND)


def _ask(question: Callable[[Any], T]) -> T:
    """Put it to AWS; whatever goes wrong is one sentence and an exit code."""
    try:
        import boto3  # noqa: PLC0415  # an extra
        from botocore.exceptions import (  # noqa: PLC0415
            BotoCoreError,
            ClientError,
            ConnectionError,  # noqa: A004
            HTTPClientError,
        )
    except ModuleNotFoundError as error:
        end(f'AWS\'s client is missing ({error.name}): pip install "living-twin[aws]".', FAILED)
    try:
        return question(boto3.client("iot"))
    except (AwsEnrolmentError, TopicError) as error:
        end(str(error), NOT_FOUND if "no such thing" in str(error) else REFUSED)
    except (ConnectionError, HTTPClientError) as error:
        end(f"AWS does not answer: {error}.", UNREACHABLE)
    except (BotoCoreError, ClientError) as error:
        end(f"AWS refuses: {error}.", FAILED)


def _hand_out(done: Any, out: Path, *, as_json: bool) -> None:
    try:
        out.write_text(done.certificate_pem, encoding="ascii")
    except OSError as error:
        end(f"The certificate cannot be written to {out} ({error.strerror}).", FAILED)
    if done.other_active:
        others = ", ".join(done.other_active)
        typer.echo(
            f"Active in its name, too: {others}. `twin-cloud aws offboard` ends them.", err=True
        )
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
    else:
        typer.echo(f"Wrote {out}; [mqtt] host is:", err=True)
        typer.echo(done.endpoint)
