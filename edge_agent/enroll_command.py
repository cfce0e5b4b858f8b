"""`edge-agent enroll`: first the key and the request, then the signed certificate.

Must never write into the configuration: a person sets the lines that it prints.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from common.topics import check_identifier
from edge_agent.config import Config
from edge_agent.errors import EnrolmentError

if TYPE_CHECKING:
    from edge_agent.enrolment import Identity

FOLDER = "tls"  # beside the configuration


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One of two steps, each with its own arguments."""
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--vehicle", metavar="ID", help="make the key and the request of this one")
    step.add_argument(
        "--certificate", type=Path, metavar="FILE", help="install what the authority signed (PEM)"
    )
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="with it the authority of the broker (PEM)"
    )


def run(options: argparse.Namespace, config: Config, tell: Callable[[str], None] = print) -> int:
    """Carry out the step. Raises EnrolmentError, TopicError."""
    # X.509 takes a megabyte of memory, which the agent that drives has no use for.
    from edge_agent.enrolment import (  # noqa: PLC0415
        Identity,
        install_certificate,
        request_certificate,
    )

    identity = Identity(Path(config.base) / FOLDER)
    if options.vehicle is None:
        now = datetime.now(UTC)
        until = install_certificate(
            identity, config.vehicle_id, options.certificate, options.ca, now
        )
        _tell_installed(identity, config, until, tell)
        return 0
    if options.ca is not None:
        raise EnrolmentError("--ca goes with --certificate, the second step")
    check_identifier("vehicle_id", options.vehicle)
    is_new = request_certificate(identity, options.vehicle)
    tell(f"key       {identity.key}  ({'made here, stays here' if is_new else 'kept as it was'})")
    tell(f"request   {identity.request}")
    if config.vehicle_id != options.vehicle:
        tell(f'set       vehicle_id = "{options.vehicle}"  in the configuration')
    tell("next      have the request signed by the fleet's authority (deploy/mosquitto/README.md),")
    tell("          then: edge-agent enroll --certificate FILE --ca FILE")
    return 0


def _tell_installed(
    identity: Identity, config: Config, until: datetime, tell: Callable[[str], None]
) -> None:
    tell(f"certificate  {identity.certificate}, valid until {until:%Y-%m-%d}")
    tls = config.mqtt.tls
    found = [Path(tls.ca_file), Path(tls.cert_file), Path(tls.key_file)] if tls else []
    if found == [identity.authority, identity.certificate, identity.key]:
        tell("next         the configuration names it already: systemctl restart edge-agent")
        return
    tell("next         set in the configuration, with the broker's name and TLS port in [mqtt],")
    tell("             then: systemctl restart edge-agent\n")
    tell("[mqtt.tls]")
    if not identity.authority.exists():
        tell("# not here yet; `--ca FILE` puts it there:")
    for name, file in (
        ("ca_file", identity.authority),
        ("cert_file", identity.certificate),
        ("key_file", identity.key),
    ):
        tell(f'{name} = "{FOLDER}/{file.name}"')
