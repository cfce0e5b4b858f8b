"""Whether an announced release is to be believed and fetched: a decision with its reason.

Pure. Must never let a size, a name or a number pass that the signature does not cover.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from common.errors import ContractError, SignatureError, UnknownSchemaError
from common.manifest import Manifest
from common.messages import Digest, Identifier
from common.release import (
    Announcement,
    ReleaseNumber,
    ReleaseReason,
    SignedAnnouncement,
    decode_announcement,
    digest,
    verify_announcement,
)
from common.trust import TrustStore
from edge_agent.bundle_update.record import Slot
from edge_agent.config import Config
from edge_agent.sources import signal_names


@dataclass(frozen=True)
class Receiver:
    """Who judges: the vehicle, what it trusts now, and the largest bundle that it takes."""

    vehicle_id: str
    trusted: Callable[[], TrustStore]
    bundle_bytes: int


@dataclass(frozen=True)
class Judgement:
    """Fetch it (`reason` empty), or why not.

    `named` is what an answer can name: signed by a trusted key for this vehicle. It may be there
    although the announcement as a whole could not be read.
    """

    reason: ReleaseReason
    detail: str = ""
    announcement: Announcement | None = None
    named: Slot | None = None

    @property
    def hash(self) -> str:
        """Of the announcement's bytes."""
        return self.named.announcement if self.named else ""


class _Named(msgspec.Struct):
    vehicle_id: Identifier
    release: ReleaseNumber
    bundle: Digest


def judge(signed: SignedAnnouncement, who: Receiver, floor: int) -> Judgement:
    """Believe what a trusted key signed for this vehicle, with a release above `floor`."""
    found = authenticate(signed, who)
    announcement = found.announcement
    if found.reason or announcement is None:
        return found
    if announcement.release <= floor:
        detail = f"release {announcement.release} comes after {floor} was judged"
        return replace(found, reason="not_newer", detail=detail)
    if announcement.size > who.bundle_bytes:
        detail = f"{announcement.size} bytes, at most {who.bundle_bytes} are taken"
        return replace(found, reason="too_large", detail=detail)
    return found


def authenticate(signed: SignedAnnouncement, who: Receiver) -> Judgement:
    """What can be said of it whatever came before."""
    try:
        content = verify_announcement(signed, who.trusted())
    except SignatureError as error:
        return Judgement(error.reason, str(error))
    named = _named(content)
    if named is not None and named[0] != who.vehicle_id:
        return Judgement("wrong_vehicle", f"it is addressed to {named[0]}")
    slot = named[1] if named else None
    try:
        announcement = decode_announcement(content)
    except ContractError as error:
        is_newer = isinstance(error, UnknownSchemaError)
        return Judgement("unknown_schema" if is_newer else "malformed", str(error), None, slot)
    return Judgement("", "", announcement, slot)


def _named(content: bytes) -> tuple[str, Slot] | None:
    """The vehicle that it is for, and what an answer must name."""
    try:
        found = msgspec.json.decode(content, type=_Named)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found.vehicle_id, Slot(found.bundle, found.release, digest(content))


def incompatibility(new: Manifest, running: Manifest, config: Config) -> str | None:
    """Why this vehicle could not feed that bundle; None: it can.

    A CAN bus gives what the configuration maps. A program or a table gives what the present bundle
    needs: of more nothing is known.
    """
    can = config.source.can if config.source.kind == "can" else None
    given = set(can.signals if can else signal_names(running, config.source))
    missing = [name for name in signal_names(new, config.source) if name not in given]
    if missing:
        return f"no source gives {', '.join(missing)}"
    if new.odometer_unit != running.odometer_unit:
        return f"its odometer is in {new.odometer_unit}, the car's in {running.odometer_unit}"
    if (new.target.name, new.target.unit) != (running.target.name, running.target.unit):
        return f"it predicts {new.target.name} in {new.target.unit}"
    return None
