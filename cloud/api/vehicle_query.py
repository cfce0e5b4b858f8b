"""What the list of vehicles may be asked: filters, comparisons and orders, each by its name.

Must never take a name that is not declared here.
"""

# Without `from __future__ import annotations`: FastAPI reads the annotations of this class.
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from fastapi import Depends, Query

from cloud.api.schemas import EstimateState
from cloud.store.vehicle_pages import Wanted

Sort = Literal[
    "vehicle_id",
    "-vehicle_id",
    "soh",
    "-soh",
    "drift",
    "-drift",
    "error",
    "-error",
    "odometer",
    "-odometer",
    "breaches",
    "-breaches",
    "last_seen",
    "-last_seen",
]
Number = Annotated[float | None, Query(allow_inf_nan=False)]
Whole = Annotated[int | None, Query(ge=-(2**31), le=2**31)]


@dataclass(frozen=True)
class VehicleFilter:
    """Which vehicles; `x__lt`, `x__lte`, `x__gt`, `x__gte` compare, and leave unknowns out."""

    vehicle_id__startswith: Annotated[
        str | None, Query(min_length=1, max_length=64, pattern="^[A-Za-z0-9_-]+$")
    ] = None
    state: Annotated[EstimateState | None, Query()] = None
    bundle: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None
    cohort: Annotated[str | None, Query(min_length=1, max_length=64)] = None
    online: Annotated[bool | None, Query()] = None
    soh__lt: Number = None
    soh__lte: Number = None
    soh__gt: Number = None
    soh__gte: Number = None
    drift__lt: Number = None
    drift__lte: Number = None
    drift__gt: Number = None
    drift__gte: Number = None
    error__lt: Number = None
    error__lte: Number = None
    error__gt: Number = None
    error__gte: Number = None
    odometer__lt: Number = None
    odometer__lte: Number = None
    odometer__gt: Number = None
    odometer__gte: Number = None
    breaches__lt: Whole = None
    breaches__lte: Whole = None
    breaches__gt: Whole = None
    breaches__gte: Whole = None

    def wanted(self) -> Wanted:
        """As the store reads it."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        own = {"vehicle_id__startswith", "state", "bundle", "cohort", "online"}
        compared = {n: v for n, v in given.items() if n not in own and v is not None}
        return Wanted(
            starts_with=self.vehicle_id__startswith,
            state=self.state,
            bundle=self.bundle,
            cohort=self.cohort,
            online=self.online,
            compared=compared,
        )


Filtered = Annotated[VehicleFilter, Depends()]
Sorted = Annotated[
    Sort,
    Query(description="A minus in front: the highest first. Where it is unknown, last."),
]
