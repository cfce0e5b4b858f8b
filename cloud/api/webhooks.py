"""Webhooks: where events are carried to, and what became of each delivery.

A secret is shown once, when its webhook is made. Must never show it again.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from sqlmodel import Session, select

from cloud.alerts.sending import check_url, new_secret
from cloud.api.access import Here
from cloud.api.authority import Actor, Admin
from cloud.api.operator_schemas import DeliveryItem, NewWebhook, WebhookItem, WebhookMade
from cloud.api.paging import Listing, Page, Paged, answer
from cloud.api.problems import ProblemError, invalid, not_found, responses
from cloud.api.views import some_utc, utc
from cloud.api.writing import ANONYMOUS, WRITE_STATUSES, Answer, OnceOnly, named
from cloud.errors import WebhookError
from cloud.store import event_pages, events, webhooks
from cloud.store.alert_tables import Delivery, Webhook

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"])
MOST_WEBHOOKS = 100
MOST_IDS = 2**31
State = Literal["pending", "delivered", "given_up"]


@router.get("", responses=responses())
def list_webhooks(here: Here, actor: Admin) -> Page[WebhookItem]:
    """All webhooks, without their secrets."""
    with here.store.read() as db:
        rows = db.exec(select(Webhook).order_by(Webhook.id)).all()  # type: ignore[arg-type]
    return Page(items=[_item(row) for row in rows if _is_own(actor, row)], next=None)


@router.post("", status_code=201, response_model=WebhookMade, responses=responses(*WRITE_STATUSES))
def make_webhook(here: Here, actor: Admin, once: OnceOnly, told: NewWebhook) -> Response:
    """Carry events to an address from now on; the answer alone shows the secret that signs them."""

    def write(db: Session) -> Answer:
        if actor.cohorts is not None and told.cohort not in actor.cohorts:
            raise ProblemError(403, f"Give one of {actor.name}'s own cohorts.")
        if len(db.exec(select(Webhook.id)).all()) >= MOST_WEBHOOKS:
            raise ProblemError(409, f"There are {MOST_WEBHOOKS} webhooks already.")
        try:
            check_url(told.url, here.webhook_networks)
        except WebhookError as error:
            raise invalid("body.url", error.problem) from error
        who, now = named(actor, told.by), here.clock()
        row = Webhook(
            url=told.url,
            kinds=msgspec.json.encode(told.kinds),
            cohort=told.cohort,
            secret=new_secret(),
            made_by=who,
            why=told.why,
            made_at=now,
            last_event=event_pages.newest_id(db),
        )
        db.add(row)
        db.flush()
        detail = {"webhook": row.id, "url": told.url, "why": told.why}
        events.add(db, "webhook.made", now, cohort=told.cohort, actor=who, detail=detail)
        return Answer(WebhookMade(**_item(row).model_dump(), secret=row.secret), 201)

    return once.write(actor, write)


@router.get("/{webhook_id}", responses=responses(404))
def get_webhook(here: Here, actor: Admin, webhook_id: int) -> WebhookItem:
    """One webhook, without its secret."""
    with here.store.read() as db:
        return _item(_known(db, actor, webhook_id))


@router.delete("/{webhook_id}", status_code=204, responses=responses(*WRITE_STATUSES))
def delete_webhook(
    here: Here,
    actor: Admin,
    once: OnceOnly,
    webhook_id: int,
    why: Annotated[str, Query(min_length=1, max_length=256)],
) -> Response:
    """Carry nothing more to it; what is on its way is dropped."""

    def write(db: Session) -> Answer:
        row = _known(db, actor, webhook_id)
        detail = {"webhook": row.id, "url": row.url, "why": why}
        who = named(actor, None) or ANONYMOUS
        events.add(db, "webhook.deleted", here.clock(), cohort=row.cohort, actor=who, detail=detail)
        webhooks.remove(db, row)
        return Answer(status=204)

    return once.write(actor, write)


@router.get("/{webhook_id}/deliveries", response_model=Page[DeliveryItem], responses=responses(404))
def list_deliveries(
    here: Here, actor: Admin, paging: Paged, webhook_id: int, state: State | None = None
) -> Response:
    """What is on its way, came there (kept a week), or was given up after a day; latest first."""
    with here.store.read() as db:
        hook = _known(db, actor, webhook_id)
    rows = partial(_deliveries, hook, state)
    items = lambda _db, found: [_delivery(row) for row in found]  # noqa: E731
    return answer(here.store, paging, Listing(int, rows, lambda row: row.id or 0, items))


def _deliveries(
    hook: Webhook, state: str | None, db: Session, before: int | None, limit: int
) -> list[Delivery]:
    return list(webhooks.deliveries(db, hook, before, limit, state))


def _known(db: Session, actor: Actor, webhook_id: int) -> Webhook:
    row = db.get(Webhook, webhook_id) if 0 < webhook_id < MOST_IDS else None
    if row is None or not _is_own(actor, row):
        raise not_found(f"webhook {webhook_id}")
    return row


def _is_own(actor: Actor, row: Webhook) -> bool:
    return actor.cohorts is None or row.cohort in actor.cohorts


def _item(row: Webhook) -> WebhookItem:
    return WebhookItem(
        **row.model_dump(include={"id", "url", "cohort", "made_by", "why"}),
        kinds=msgspec.json.decode(row.kinds, type=list[str] | None),
        made_at=some_utc(row.made_at),
    )


def _delivery(row: Delivery) -> DeliveryItem:
    return DeliveryItem(
        **row.model_dump(include={"id", "event_id", "kind", "state", "attempts", "status"}),
        problem=row.problem,
        made_at=some_utc(row.made_at),
        next_at=utc(row.next_at) if row.state == "pending" else None,
        done_at=utc(row.done_at),
    )
