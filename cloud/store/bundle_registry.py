"""The bundles whose files are here, and how many vehicles run which.

Must never read a model where its length will do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from cloud.store import locks
from cloud.store.tables import BundleFiles, Vehicle


@dataclass(frozen=True)
class Kept:
    """A bundle's files, but for the model itself."""

    sha256: str
    manifest: bytes
    model_bytes: int
    added_at: float
    added_by: str | None
    why: str | None


_KEPT: Final = (
    col(BundleFiles.sha256),
    col(BundleFiles.manifest),
    func.length(BundleFiles.model),
    col(BundleFiles.added_at),
    col(BundleFiles.added_by),
    col(BundleFiles.why),
)


def is_kept(db: Session, sha256: str) -> bool:
    """Whether the files of a bundle are here."""
    query = select(BundleFiles.sha256).where(BundleFiles.sha256 == sha256)
    return db.exec(query).first() is not None


def kept(db: Session, sha256: str | None = None) -> Sequence[Kept]:
    """Every bundle whose files are here, the one added last first; or this one alone."""
    query = select_columns(*_KEPT).order_by(
        col(BundleFiles.added_at).desc(), col(BundleFiles.sha256)
    )
    if sha256 is not None:
        query = query.where(col(BundleFiles.sha256) == sha256)
    return [Kept(*row) for row in db.connection().execute(query)]


def add(
    db: Session,
    sha256: str,
    manifest: bytes,
    model: bytes,
    now: float,
    by: str | None = None,
    why: str | None = None,
) -> None:
    """Keep the files of a bundle; another writer may do so at the same time."""
    row = BundleFiles(
        sha256=sha256, manifest=manifest, model=model, added_at=now, added_by=by, why=why
    )
    locks.add_missing(db, BundleFiles, [row.model_dump()])


def runners(db: Session, cohorts: Collection[str] | None) -> dict[str, int]:
    """By bundle how many vehicles say that they run it, of these cohorts (None: of all)."""
    query = select(Vehicle.bundle, func.count()).where(col(Vehicle.bundle).is_not(None))
    if cohorts is not None:
        query = query.where(col(Vehicle.cohort).in_(cohorts))
    return {str(bundle): count for bundle, count in db.exec(query.group_by(Vehicle.bundle))}
