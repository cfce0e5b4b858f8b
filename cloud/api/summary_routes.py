"""The fleet in one answer: what came between two times, and how it stands now.

Must never write to the database.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query

from cloud.api.access import Here
from cloud.api.authority import Viewer
from cloud.api.history_schemas import Bin, Summary
from cloud.api.moments import Moment
from cloud.api.problems import invalid, responses
from cloud.api.views import some_utc
from cloud.store import summaries
from cloud.store.summaries import Bins, Period, Scope

router = APIRouter(prefix="/api/v1", tags=["fleet"])

DEFAULT_PERIOD: Final = timedelta(days=30)


@router.get("/summary", responses=responses())
def get_summary(
    here: Here,
    viewer: Viewer,
    since: Annotated[
        Moment | None, Query(alias="from", description="[default: 30 days before `to`]")
    ] = None,
    until: Annotated[Moment | None, Query(alias="to", description="[default: now]")] = None,
    cohort: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
) -> Summary:
    """Counts, errors of trips, updates and verdicts in a time; states and health now."""
    now = here.clock()
    end = until.timestamp() if until else now
    start = since.timestamp() if since else end - DEFAULT_PERIOD.total_seconds()
    if not start < end:
        raise invalid("query.from", "not before `to`")
    period, scope = Period(start, end), Scope(viewer.cohorts, cohort)
    with here.store.read() as db:
        states = summaries.vehicles(db, scope, here.catalogue.hashes, now)
        errors = summaries.trip_errors(db, scope, period)
        soh, soh_unknown = summaries.health(db, scope)
        by_kind, by_verdict = summaries.revisions(db, scope, period)
        return Summary(
            since=some_utc(start),
            until=some_utc(end),
            vehicles=sum(states.values()),
            vehicles_online=summaries.online(db, scope),
            vehicles_by_state={k: n for k, n in states.items() if k != "unknown"},
            trips=sum(count for *_, count in errors),
            breaches=summaries.breaches(db, scope, period),
            revisions_by_kind=dict(by_kind),
            revisions_by_verdict=dict(by_verdict),
            trip_error_v=_items(errors),
            soh=_items(soh),
            soh_unknown=soh_unknown,
        )


def _items(bins: Bins) -> list[Bin]:
    return [Bin(lower=low, upper=high, count=count) for low, high, count in bins]
