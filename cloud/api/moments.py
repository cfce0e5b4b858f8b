"""Times that callers give: only those that can be told back in UTC.

The first day of the calendar falls out of it in another time zone, or thirty days before.
Must never take a time without its zone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, AwareDatetime

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)


def _tellable(told: datetime) -> datetime:
    if not EARLIEST <= told <= LATEST:
        problem = f"not between the years {EARLIEST.year} and {LATEST.year}"
        raise ValueError(problem)
    return told


Moment = Annotated[AwareDatetime, AfterValidator(_tellable)]
