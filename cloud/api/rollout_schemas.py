"""What the API takes and shows of staged roll-outs.

Must never have another default than `cloud.rollout.plan`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from cloud.api.bundle_schemas import Sha256
from cloud.api.operator_schemas import Name, Told
from cloud.rollout.deciding import HaltKind, State
from cloud.rollout.plan import DAY_S, Rules

_RULES = Rules()
_LONGEST_S = 366 * DAY_S


class RolloutRules(BaseModel):
    """When it halts by itself; null: not for that."""

    model_config = ConfigDict(extra="forbid")

    refused_share: float | None = Field(
        default=_RULES.refused_share,
        ge=0,
        lt=1,
        description="Halt when more than this share of the answers are `refused`, `rolled_back`.",
    )
    min_answers: int = Field(
        default=_RULES.min_answers,
        ge=1,
        le=1_000_000,
        description="So many answers are needed to judge, and to go on; of fewer vehicles all.",
    )
    error_factor: float | None = Field(
        default=_RULES.error_factor,
        gt=0,
        le=1000,
        description="Halt when the mean trip error is above this times that of the old bundle.",
    )
    min_trips: int = Field(
        default=_RULES.min_trips, ge=1, le=1_000_000, description="With the new bundle, to judge."
    )
    answers_within_s: float | None = Field(
        default=_RULES.answers_within_s,
        ge=0,
        le=_LONGEST_S,
        description="Halt when there are too few answers so long after a stage was ordered.",
    )


class RolloutStart(Told):
    """A roll-out as it shall be."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "winter-2", "bundle": "0" * 64, "cohorts": ["north"], "why": "cold trips"}
            ]
        }
    )

    name: Name = Field(description="Its id; which vehicle is in which stage follows from it.")
    bundle: Sha256
    cohorts: list[Name] = Field(
        default=[], max_length=100, description="Whose vehicles; none: those of every cohort."
    )
    from_bundle: Sha256 | None = Field(
        default=None, description="Only vehicles that run this bundle."
    )
    stages_percent: list[Annotated[float, Field(gt=0, le=100)]] = Field(
        default=[1, 10, 50, 100], min_length=1, max_length=20, description="They rise."
    )
    soak_s: float = Field(
        default=DAY_S, ge=0, le=_LONGEST_S, description="How long each stage is watched."
    )
    rules: RolloutRules = RolloutRules()


class RolloutItem(BaseModel):
    """A roll-out and its state."""

    name: str
    bundle: str
    state: State
    stage: int = Field(description="Of `stages_percent`, from 1.")
    stages_percent: list[float]
    cohorts: list[str]
    from_bundle: str | None
    soak_s: float
    rules: RolloutRules
    halt: HaltKind | None = Field(description="The rule that was broken.")
    why: str = Field(description="The last word on its state: somebody's, or the rule's.")
    changed_by: str | None = Field(description="Whose word; null: its own.")
    changed_at: datetime
    started_by: str
    started_at: datetime
    started_why: str


class RolloutStage(BaseModel):
    """A stage: how many vehicles it had when the roll-out began, and what they have said."""

    percent: float
    planned: int
    ordered: int
    answers: dict[str, int] = Field(
        description="By state of the release; `ordered`: nothing heard yet.",
        examples=[{"installed": 8, "ordered": 1, "refused": 1}],
    )


class RolloutDetail(RolloutItem):
    """A roll-out with its progress."""

    stages: list[RolloutStage]
    trips: int = Field(description="With the new bundle, since it began or was last resumed.")
    error_v: float | None = Field(description="Their mean error.")
    old_trips: int = Field(description="The same vehicles' last trips before.")
    old_error_v: float | None
    told_back: int = Field(description="Vehicles that were told to go back to their old bundle.")
    back: int = Field(description="Those of them that say that they did.")
