"""Walk every vehicle's chain and prove that nobody edited it.

Must never write. A trusted public key given from outside proves more than one that the database
itself remembers: whoever can edit the file could add a key of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlmodel import Session, col, select

from cloud.calibration.revising import signed_message
from cloud.store.tables import Breach, RevisionRow, SigningKey
from common.errors import ChainError, SignatureError
from common.revision import decode_revision, verify_chain
from common.signing import TrustedKeys, verify


@dataclass(frozen=True)
class Verified:
    """A vehicle's chain that holds: how many revisions, and the hash of the newest."""

    vehicle_id: str
    revisions: int
    head: str


def remembered_keys(db: Session) -> dict[str, Ed25519PublicKey]:
    """The public keys that the service has written down."""
    return {
        key.key_id: Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_key))
        for key in db.exec(select(SigningKey))
    }


def verify_all(db: Session, trusted: TrustedKeys) -> Iterator[Verified | ChainError]:
    """One result for each vehicle that has, or should have, revisions; by vehicle id."""
    vehicles = set(db.exec(select(RevisionRow.vehicle_id).distinct()))
    vehicles.update(db.exec(select(Breach.vehicle_id).where(Breach.state == "calibrated")))
    for vehicle_id in sorted(vehicles):
        try:
            yield _verify_vehicle(db, vehicle_id, trusted)
        except ChainError as error:
            yield error


def _verify_vehicle(db: Session, vehicle_id: str, trusted: TrustedKeys) -> Verified:
    count, head = verify_chain(vehicle_id, _checked_links(db, vehicle_id, trusted))
    _check_nothing_is_missing(db, vehicle_id, count)
    return Verified(vehicle_id, count, head)


def _checked_links(
    db: Session, vehicle_id: str, trusted: TrustedKeys
) -> Iterator[tuple[bytes, str]]:
    """Each link goes to the chain first; what only this table knows is checked after it passed."""
    query = select(RevisionRow).where(RevisionRow.vehicle_id == vehicle_id)
    for row in db.exec(query.order_by(col(RevisionRow.number))).yield_per(100):
        yield _as_bytes(row.content), row.hash
        _check_row(row, trusted)


def _as_bytes(content: object) -> bytes:
    """SQLite lets an editor store anything in any column."""
    return content if isinstance(content, bytes) else str(content).encode()


def _check_row(row: RevisionRow, trusted: TrustedKeys) -> None:
    revision = decode_revision(_as_bytes(row.content))
    found = (row.number, row.bundle, row.odometer, row.cause_message_id, row.created_at, row.kind)
    told = (
        revision.number,
        revision.bundle,
        revision.odometer,
        revision.cause.message_id,
        revision.created_at,
        revision.cause.kind,
    )
    if found != told:
        raise ChainError(row.vehicle_id, revision.number, "its columns differ from its content")
    try:
        verify(signed_message(row), trusted)
    except (SignatureError, AttributeError, TypeError, ValueError) as error:
        raise ChainError(
            row.vehicle_id, revision.number, f"its signature fails ({error})"
        ) from error


def _check_nothing_is_missing(db: Session, vehicle_id: str, count: int) -> None:
    """A chain that was cut at its end still holds: its breaches tell."""
    causes = select(RevisionRow.cause_message_id).where(RevisionRow.vehicle_id == vehicle_id)
    query = select(Breach.message_id).where(
        Breach.vehicle_id == vehicle_id,
        Breach.state == "calibrated",
        col(Breach.message_id).not_in(causes),
    )
    missing = db.exec(query.limit(1)).first()
    if missing is not None:
        raise ChainError(vehicle_id, count + 1, f"the revision of breach {missing} is missing")
