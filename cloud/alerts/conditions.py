"""Which alarms a vehicle gives cause for, by type, with a severity and a sentence.

Pure. An alarm that is on stays on until its cause is clearly gone, so that it does not flicker.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cloud.policy import Policy

Type = Literal["health", "no_revision", "revision_refused", "stale", "doubtful"]
Severity = Literal["critical", "major", "minor", "warning"]
DAY_S: Final = 86400.0
HEALTH_MARGIN: Final = 0.01
CERTAIN_STDS: Final = 2.0


@dataclass(frozen=True)
class Facts:
    """What is known of a vehicle; `refused` is why it refused its newest revision, if it did."""

    vehicle_id: str
    cohort: str
    soh: float | None
    soh_std: float | None
    failures: int
    last_seen_at: float | None
    estimate_state: str
    refused: str | None = None


@dataclass(frozen=True)
class Cause:
    """Why there is an alarm."""

    type: Type
    severity: Severity
    reason: str


def causes(facts: Facts, policy: Policy, active: Collection[str], now: float) -> Iterator[Cause]:
    """Every cause there is now, given the types that are `active`."""
    margin = HEALTH_MARGIN if "health" in active else 0.0
    if facts.soh is not None and facts.soh < policy.health_limit + margin:
        certain = facts.soh + CERTAIN_STDS * (facts.soh_std or 0.0) < policy.health_limit
        told = f"state of health {facts.soh:.3f}, limit {policy.health_limit:g}"
        yield Cause("health", "critical" if certain else "major", told)
    if facts.failures >= policy.failures_in_a_row:
        told = f"{facts.failures} breaches in a row brought no usable revision"
        yield Cause("no_revision", "major", told)
    if facts.refused is not None:
        yield Cause(
            "revision_refused", "minor", f"its newest revision was refused: {facts.refused}"
        )
    seen = facts.last_seen_at
    if seen is not None and now - seen > policy.stale_after_days * DAY_S:
        yield Cause("stale", "warning", f"not seen for {(now - seen) / DAY_S:.0f} days")
    if facts.estimate_state == "doubtful":
        yield Cause("doubtful", "minor", "its estimate is doubtful")
