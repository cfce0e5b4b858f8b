"""What a roll-out is to do: whom it brings a bundle, in which stages, and when it must halt.

Pure. Must never need more than a roll-out's name and a vehicle's id to say which stage is whose.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Annotated, Final

import msgspec

Percent = Annotated[float, msgspec.Meta(gt=0, le=100)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=366 * 86400.0)]
DAY_S: Final = 86400.0


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a roll-out halts by itself; None: not for that.

    `refused_share`: more than this share of at least `min_answers` vehicles refused the bundle or
    rolled it back. `error_factor`: the mean error of at least `min_trips` trips with the new bundle
    is above that of trips with the old one by more than this factor. `answers_within_s`: so long
    after a stage was ordered there are not `min_answers` yet, or, of fewer vehicles, not all.
    """

    refused_share: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = 0.05
    min_answers: Count = 20
    error_factor: Annotated[float, msgspec.Meta(gt=0, le=1000)] | None = 2.0
    min_trips: Count = 50
    answers_within_s: Seconds | None = 14 * DAY_S


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Of one roll-out. Without `cohorts` it is for every cohort; `stages_percent` rise."""

    cohorts: list[str] = []
    from_bundle: str | None = None
    stages_percent: Annotated[list[Percent], msgspec.Meta(min_length=1, max_length=20)]
    soak_s: Seconds = DAY_S
    rules: Rules = Rules()


def place(name: str, vehicle_id: str) -> float:
    """Where in [0, 100) a vehicle stands in a roll-out: the same for ever, even over the fleet."""
    digest = hashlib.sha256(f"{name}\n{vehicle_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53 * 100


def stage_of(plan: Plan, name: str, vehicle_id: str) -> int | None:
    """In which stage a vehicle's turn comes, from 0; None: it is beyond the last one."""
    at = place(name, vehicle_id)
    return next((i for i, percent in enumerate(plan.stages_percent) if at < percent), None)


def rises(stages_percent: list[float]) -> bool:
    """Whether each stage is larger than the one before."""
    return all(low < high for low, high in pairwise(stages_percent))


def overlap(one: Plan, other: Plan) -> bool:
    """Whether there may be a vehicle that both are for."""
    same_cohort = not one.cohorts or not other.cohorts or set(one.cohorts) & set(other.cohorts)
    both = (one.from_bundle, other.from_bundle)
    return bool(same_cohort) and (None in both or both[0] == both[1])
