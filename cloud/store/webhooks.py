"""Webhooks and their deliveries: made of events in order, sent in order, given up visibly.

Must never lose an event between the log and a delivery: both positions move in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from cloud.store import event_pages
from cloud.store.alert_tables import Delivery, Webhook
from cloud.store.event_pages import Wanted
from cloud.store.event_tables import Event

PAGE: Final = 200
MOST_PENDING: Final = 10_000
LEASE_S: Final = 120.0
KEPT_S: Final = 7 * 86400.0
GIVE_UP_S: Final = 24 * 3600.0


def wanted(hook: Webhook) -> Wanted:
    """Which events a webhook takes."""
    return Wanted(msgspec.json.decode(hook.kinds, type=list[str] | None), cohort=hook.cohort)


def any_free(db: Session, now: float) -> bool:
    """Whether there is a webhook that nobody delivers for now, and something to be done for it."""
    newest = event_pages.newest_id(db)
    waits = select(Delivery.id).where(
        Delivery.webhook_id == Webhook.id, Delivery.state == "pending", col(Delivery.next_at) <= now
    )
    due = select(Webhook.id).where(
        col(Webhook.leased_until) <= now, (col(Webhook.last_event) < newest) | waits.exists()
    )
    return db.exec(due.limit(1)).first() is not None


def lease(db: Session, now: float) -> list[Webhook]:
    """Webhooks that nobody delivers for now; from here on this process does, for LEASE_S."""
    free = db.exec(select(Webhook.id).where(col(Webhook.leased_until) <= now)).all()
    mine = [hook_id for hook_id in free if _take(db, hook_id, now)]
    return list(db.exec(select(Webhook).where(col(Webhook.id).in_(mine))))


def _take(db: Session, hook_id: int | None, now: float) -> bool:
    free = (col(Webhook.id) == hook_id) & (col(Webhook.leased_until) <= now)
    taken = db.exec(update(Webhook).where(free).values(leased_until=now + LEASE_S))
    return bool(taken.rowcount)


def release(db: Session, hook: Webhook) -> None:
    """Others may deliver for it again."""
    db.exec(update(Webhook).where(col(Webhook.id) == hook.id).values(leased_until=0.0))


def fan_out(db: Session, hook: Webhook, now: float) -> bool:
    """Make deliveries of the next events; whether there may be more.

    As long as MOST_PENDING wait it is not gone on with: events are kept long enough for that.
    """
    last = db.get(Webhook, hook.id)
    if last is None or len(pending(db, hook, MOST_PENDING)) >= MOST_PENDING:
        return False
    rows = event_pages.after(db, last.last_event, PAGE)
    takes = wanted(hook)
    db.add_all(_delivery(hook, row, now) for row in rows if takes.takes(row))
    if rows:
        last.last_event = rows[-1].id or last.last_event
    return len(rows) == PAGE


def pending(db: Session, hook: Webhook, limit: int) -> Sequence[int]:
    """Ids of its deliveries that wait, the oldest first."""
    query = select(Delivery.id).where(Delivery.webhook_id == hook.id, Delivery.state == "pending")
    return [one or 0 for one in db.exec(query.order_by(col(Delivery.id)).limit(limit))]


def next_due(db: Session, hook: Webhook, now: float) -> Delivery | None:
    """The oldest that waits, if it is time: what comes after it waits behind it."""
    query = select(Delivery).where(Delivery.webhook_id == hook.id, Delivery.state == "pending")
    first = db.exec(query.order_by(col(Delivery.id)).limit(1)).first()
    return first if first is not None and first.next_at <= now else None


def note(
    db: Session,
    delivery: Delivery,
    *,
    status: int | None,
    problem: str | None,
    again_at: float,
    now: float,
) -> None:
    """What came of an attempt; after GIVE_UP_S without success it is given up."""
    row = db.get(Delivery, delivery.id)
    if row is None:
        return  # its webhook is gone
    row.attempts, row.status, row.problem = row.attempts + 1, status, problem
    if problem is None:
        row.state, row.done_at = "delivered", now
    elif again_at - row.made_at > GIVE_UP_S:
        row.state, row.done_at = "given_up", now
    else:
        row.next_at = again_at


def remove(db: Session, hook: Webhook) -> None:
    """With everything that is on its way to it."""
    db.exec(delete(Delivery).where(col(Delivery.webhook_id) == hook.id))
    db.delete(hook)


def delete_old(db: Session, now: float) -> None:
    """Deliveries that were settled long ago."""
    db.exec(delete(Delivery).where(col(Delivery.done_at) < now - KEPT_S))


def deliveries(
    db: Session, hook: Webhook, before: int | None, limit: int, state: str | None
) -> Sequence[Delivery]:
    """The latest first."""
    query = select(Delivery).where(Delivery.webhook_id == hook.id)
    if before is not None:
        query = query.where(col(Delivery.id) < before)
    if state is not None:
        query = query.where(Delivery.state == state)
    return db.exec(query.order_by(col(Delivery.id).desc()).limit(limit)).all()


def _delivery(hook: Webhook, event: Event, now: float) -> Delivery:
    body = {
        "type": event.kind,
        "timestamp": event.at,
        "data": {
            "event": event.id,
            "vehicle_id": event.vehicle_id,
            "cohort": event.cohort,
            "actor": event.actor,
            "detail": msgspec.Raw(event.detail),
        },
    }
    return Delivery(
        webhook_id=hook.id or 0,
        event_id=event.id or 0,
        kind=event.kind,
        body=msgspec.json.encode(body),
        made_at=now,
        next_at=now,
    )
