"""The versions of each cohort's policy: append-only, each with who made it, when and why.

Must never change a version: another policy is another version.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import func, tuple_
from sqlmodel import Session, col, select

from cloud.policy import DEFAULT, Policy
from cloud.store import events, locks
from cloud.store.operator_tables import PolicyRow


def newest(db: Session, cohort: str) -> PolicyRow | None:
    """The version that holds; None: the cohort has the default."""
    query = select(PolicyRow).where(PolicyRow.cohort == cohort)
    return db.exec(query.order_by(col(PolicyRow.version).desc()).limit(1)).first()


def versions(db: Session, cohort: str, before: int | None, limit: int) -> Sequence[PolicyRow]:
    """All versions, the newest first."""
    query = select(PolicyRow).where(PolicyRow.cohort == cohort)
    if before is not None:
        query = query.where(PolicyRow.version < before)
    return db.exec(query.order_by(col(PolicyRow.version).desc()).limit(limit)).all()


def holding(db: Session) -> dict[str, Policy]:
    """By cohort the policy that holds, of every cohort that has one."""
    last = select(PolicyRow.cohort, func.max(PolicyRow.version)).group_by(PolicyRow.cohort)
    key = tuple_(col(PolicyRow.cohort), col(PolicyRow.version))
    return {row.cohort: read(row) for row in db.exec(select(PolicyRow).where(key.in_(last)))}


def add(db: Session, cohort: str, policy: Policy, *, actor: str, why: str, now: float) -> PolicyRow:
    """The next version."""
    locks.exclusive(db, f"policy {cohort}")
    before = newest(db, cohort)
    row = PolicyRow(
        cohort=cohort,
        version=before.version + 1 if before else 1,
        content=msgspec.json.encode(policy),
        actor=actor,
        why=why,
        at=now,
    )
    db.add(row)
    db.flush()
    changed = _difference(read(before) if before else DEFAULT, policy)
    detail = {"version": row.version, "why": why, "changed": changed}
    events.add(db, "policy.changed", now, cohort=cohort, actor=actor, detail=detail)
    return row


def read(row: PolicyRow) -> Policy:
    """What a version says."""
    return msgspec.json.decode(row.content, type=Policy)


def _difference(before: Policy, now: Policy) -> dict[str, object]:
    old, new = msgspec.structs.asdict(before), msgspec.structs.asdict(now)
    return {name: {"from": old[name], "to": new[name]} for name in new if old[name] != new[name]}
