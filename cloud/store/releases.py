"""Releases: from somebody's order to the vehicle's last word, and the files that they bring.

Must never change a release that is signed, apart from what was heard of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import exists, func, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from cloud.errors import UnknownReleaseError
from cloud.store import locks
from cloud.store.tables import BundleFiles, Release, Vehicle
from common.bundle import MANIFEST_FILE
from common.release import BundleAck, Fetch

_PROGRESS: Final = (None, "fetching", "staged", "trial", "installed", "refused", "rolled_back")


_ORDERED = select(Release).where(col(Release.number).is_(None)).order_by(col(Release.id))


def order(db: Session, wanted: Release) -> Release:
    """Keep an order; the same bundle again, while the first one waits, is the same order."""
    locks.exclusive(db, "order releases")
    known = db.exec(
        select(Release).where(
            Release.vehicle_id == wanted.vehicle_id,
            Release.bundle == wanted.bundle,
            col(Release.number).is_(None),
        )
    ).first()
    if known is None:
        db.add(wanted)
        db.flush()
    return known or wanted


def ordered(db: Session, limit: int) -> Sequence[Release]:
    """Orders that are no release yet, the oldest first."""
    return db.exec(_ORDERED.limit(limit)).all()


def taken(db: Session, limit: int) -> Sequence[Release]:
    """The same, for the one who makes releases of them now; another one finds none of these."""
    locks.exclusive(db, "number releases")
    return ordered(db, limit)


def next_number(db: Session, vehicle_id: str) -> int:
    """Above every release of this vehicle, and above what it says that it believed."""
    query = select(func.max(col(Release.number))).where(Release.vehicle_id == vehicle_id)
    vehicle = db.get(Vehicle, vehicle_id)
    said = vehicle.bundle_release if vehicle else None
    return 1 + max(db.exec(query).one() or 0, said or 0)


def newest(db: Session, vehicle_id: str) -> Release | None:
    """The release with the highest number."""
    query = select(Release).where(
        Release.vehicle_id == vehicle_id, col(Release.number).is_not(None)
    )
    return db.exec(query.order_by(col(Release.number).desc()).limit(1)).first()


def latest(db: Session, vehicle_id: str) -> Release | None:
    """What was ordered last, a release already or not."""
    query = select(Release).where(Release.vehicle_id == vehicle_id)
    return db.exec(query.order_by(col(Release.id).desc()).limit(1)).first()


def newest_unheard(db: Session) -> list[Release]:
    """Of each vehicle the newest release, when the vehicle has said nothing of it."""
    later = aliased(Release)
    query = select(Release).where(
        col(Release.number).is_not(None),
        col(Release.state).is_(None),
        ~exists().where(
            col(later.vehicle_id) == Release.vehicle_id, col(later.number) > Release.number
        ),
    )
    return list(db.exec(query))


def mark_published(db: Session, ids: Collection[int], now: float) -> None:
    """The broker has these announcements."""
    db.exec(
        update(Release)
        .where(col(Release.id).in_(ids), col(Release.published_at).is_(None))
        .values(published_at=now)
    )


def heard(db: Session, message: BundleAck | Fetch, now: float) -> None:
    """Note what a vehicle says of its release. Raises UnknownReleaseError, nothing written.

    What is further along is not unsaid: messages may come again, and late.
    """
    row = _numbered(db, message.vehicle_id, message.release)
    if row is None or row.bundle != message.bundle:
        raise UnknownReleaseError(message.vehicle_id, message.release)
    if isinstance(message, Fetch):
        row.missing = message.missing
        return
    if row.hash != message.announcement_hash:
        raise UnknownReleaseError(message.vehicle_id, message.release)
    if _PROGRESS.index(message.state) <= _PROGRESS.index(row.state):
        return
    row.state, row.state_at = message.state, now
    row.state_reason, row.state_detail = message.reason or None, message.detail or None
    if message.state in {"staged", "trial", "installed"}:
        row.missing = 0


def piece(db: Session, fetch: Fetch, index: int, chunk_bytes: int) -> bytes:
    """One chunk of a file; the database reads no more of it than it must."""
    column = BundleFiles.manifest if fetch.file == MANIFEST_FILE else BundleFiles.model
    query = select(func.substr(column, 1 + index * chunk_bytes, chunk_bytes)).where(
        BundleFiles.sha256 == fetch.bundle
    )
    content: bytes = db.exec(query).first() or b""
    return content


def _numbered(db: Session, vehicle_id: str, number: int) -> Release | None:
    return db.exec(
        select(Release).where(Release.vehicle_id == vehicle_id, Release.number == number)
    ).first()
