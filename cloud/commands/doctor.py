"""`twin-cloud doctor`: whether the service keeps up, from its database and its own word.

Must never write, and never pass over what it could not ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

import httpx
import msgspec
from sqlmodel import Session

from cloud.commands.reports import show
from cloud.errors import StoreError, StoreUnavailableError
from cloud.location import Location
from cloud.store import backlog, recent
from cloud.store.backlog import Deliveries, Jobs
from cloud.store.database import Reader

WINDOW_S: Final = 60.0
LONGEST_WAIT_S: Final = 60.0
LONGEST_DELIVERY_S: Final = 3600.0
ANSWER_S: Final = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `problem` says what to do; without one all is well."""

    what: str
    value: float | str | None
    unit: str = ""
    problem: str | None = None


class _Checks(msgspec.Struct):
    checks: dict[str, str] = {}
    violations: list[dict[str, str]] = []


def doctor(database: Location, url: str | None, now: float, *, as_json: bool) -> bool:
    """Print what was found; True when there is no problem."""
    findings = [*_of_database(database, now), *(_of_service(url) if url else ())]
    rows = [{**asdict(found), "ok": found.problem is None} for found in findings]
    show(rows, ["what", "value", "unit", "ok", "problem"], as_json=as_json)
    return all(row["ok"] for row in rows)


def _of_database(database: Location, now: float) -> Iterator[Finding]:
    try:
        store = Reader(database)
    except StoreError as error:
        yield Finding("migrations", "cannot be used", problem=str(error))
        return
    yield Finding("migrations", "up to date")
    try:
        with store.read() as db:
            yield from _of_tables(db, now)
    except StoreUnavailableError as error:
        yield Finding("database", "does not answer", problem=str(error))
    finally:
        store.close()


def _of_tables(db: Session, now: float) -> Iterator[Finding]:
    waiting = backlog.pending(db)
    lag = 0.0 if waiting.oldest_at is None else max(now - waiting.oldest_at, 0.0)
    slow = None
    if lag > LONGEST_WAIT_S:
        slow = "Is a worker running, and the breach's bundle in [bundles] paths? Else add workers."
    yield Finding("pending breaches", waiting.breaches)
    yield Finding("lag", round(lag, 3), "s", slow)
    yield Finding("trips ingested", round(recent.trips_per_s(db, now, WINDOW_S), 3), "1/s")
    yield Finding("revisions made", round(recent.revisions_per_s(db, now, WINDOW_S), 3), "1/s")
    latencies = recent.push_latencies_s(db)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        value = round(latencies[int(share * (len(latencies) - 1))], 4) if latencies else None
        yield Finding(f"breach to push, {name}", value, "s")
    yield from _of_webhooks(backlog.deliveries(db), now)
    yield from _of_jobs(backlog.jobs(db))
    outboxes = recent.outboxes(db)
    yield Finding("vehicles with an outbox", outboxes.vehicles)
    yield Finding("messages in outboxes", outboxes.messages)
    yield Finding("messages refused in the last hour", recent.refused(db, now - 3600.0))


def _of_webhooks(found: Deliveries, now: float) -> Iterator[Finding]:
    lag = 0.0 if found.oldest_at is None else max(now - found.oldest_at, 0.0)
    slow = None
    if lag > LONGEST_DELIVERY_S:
        slow = "The deliveries of each webhook say why its receiver does not take them."
    yield Finding("webhook deliveries waiting", found.waiting)
    yield Finding("oldest webhook delivery", round(lag, 3), "s", slow)
    yield Finding("webhook deliveries given up", found.given_up)


def _of_jobs(found: Jobs | None) -> Iterator[Finding]:
    if found is None:
        return
    none = "Start `twin-cloud worker`: no worker gives a sign of life."
    late = "Add workers, or see in their logs what holds them up."
    stalled = "Their worker gives no sign of life, and no other has taken them over."
    yield Finding("workers", found.workers, "", None if found.workers else none)
    yield Finding("jobs waiting", found.todo)
    slow = found.oldest_s > LONGEST_WAIT_S
    yield Finding("oldest job", round(found.oldest_s, 3), "s", late if slow else None)
    yield Finding("jobs in hand", found.doing)
    yield Finding("jobs stalled", found.stalled, "", stalled if found.stalled else None)


def _of_service(url: str) -> Iterator[Finding]:
    """Each check of `/health/ready`, by its name."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/health/ready", timeout=ANSWER_S, trust_env=False)
        found = msgspec.json.decode(answer.content, type=_Checks)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError) as error:
        yield Finding("service", "does not answer", problem=f"{url}: {error}. Start it.")
        return
    yield Finding("service", "answers")
    for name in found.checks:
        yield Finding(name, "ok")
    for failed in found.violations:
        yield Finding(failed["where"], "fails", problem=failed["problem"])
