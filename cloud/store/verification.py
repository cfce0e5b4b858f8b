"""Walk every vehicle's chain and prove that nobody edited it.

Must never write. A trusted public key given from outside proves more than one that the database
itself remembers: whoever can edit the file could add a key of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlmodel import Session, select

from cloud.audit.walk import NO_HEADS, Found, Heads, Verified, walk
from cloud.store import chains
from cloud.store.chains import EVERYTHING, Span
from cloud.store.tables import SigningKey
from common.errors import ChainError
from common.signing import TrustedKeys

__all__ = ["Verified", "gone", "remembered_keys", "verify_all", "verify_span"]


def remembered_keys(db: Session) -> dict[str, Ed25519PublicKey]:
    """The public keys that the service has written down."""
    return {
        key.key_id: Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_key))
        for key in db.exec(select(SigningKey))
    }


def verify_all(db: Session, trusted: TrustedKeys, heads: Heads = NO_HEADS) -> Iterator[Found]:
    """One result for each vehicle that has, or should have, revisions; every signature checked."""
    seen = set()
    for found in verify_span(db, trusted, heads, EVERYTHING, every_signature=True):
        seen.add(found.vehicle_id)
        yield found
    yield from gone(heads, seen)


def verify_span(
    db: Session, trusted: TrustedKeys, heads: Heads, span: Span, *, every_signature: bool
) -> Iterator[Found]:
    """The same for the vehicles of a span that have a revision or a calibrated breach."""
    should_have = chains.missing(db, span)
    for found in walk(chains.links(db, span), trusted, heads, every_signature=every_signature):
        message_id = should_have.pop(found.vehicle_id, None)
        if message_id is None or isinstance(found, ChainError):
            yield found
        else:
            yield _missing(found.vehicle_id, found.revisions + 1, message_id)
    for vehicle_id, message_id in should_have.items():
        yield _missing(vehicle_id, 1, message_id)


def gone(heads: Heads, seen: set[str]) -> Iterator[ChainError]:
    """Vehicles that a signed statement knows and the database does not."""
    for vehicle_id in sorted(heads.newest.keys() - seen):
        problem = "all of its revisions are gone, but a signed statement knows them"
        yield ChainError(vehicle_id, 1, problem)


def _missing(vehicle_id: str, number: int, message_id: str) -> ChainError:
    return ChainError(vehicle_id, number, f"the revision of breach {message_id} is missing")
