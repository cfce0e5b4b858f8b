"""What a roll-out does next, from what its vehicles have answered: a value, and nothing else.

Pure. Must never let a roll-out go on that has halted, whatever comes in later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from cloud.rollout.plan import Plan, Rules

State = Literal[
    "running", "soaking", "paused", "halted", "finished", "cancelled", "rolling_back", "rolled_back"
]
Verb = Literal["pause", "resume", "cancel", "roll_back"]
HaltKind = Literal["refusals", "errors", "silence"]

# Who may be told what: from which states, and what comes of it.
COMMANDS: Final[dict[Verb, tuple[tuple[State, ...], State]]] = {
    "pause": (("running", "soaking"), "paused"),
    "resume": (("paused", "halted"), "running"),
    "cancel": (("running", "soaking", "paused", "halted"), "cancelled"),
    "roll_back": (
        ("running", "soaking", "paused", "halted", "finished", "cancelled"),
        "rolling_back",
    ),
}
UNENDED: Final[tuple[State, ...]] = ("running", "soaking", "paused", "halted", "rolling_back")
"""Another roll-out for the same vehicles must wait."""


@dataclass(frozen=True)
class Tally:
    """What has come in: vehicles ordered for, those that gave a last word, and trips' errors.

    `seen_answers` and `seen_refused` had come when an operator last resumed it: they are not held
    against it again. Trips count from then on, too.
    """

    ordered: int = 0
    answers: int = 0
    refused: int = 0
    seen_answers: int = 0
    seen_refused: int = 0
    trips: int = 0
    error_sum_v: float = 0.0
    old_trips: int = 0
    old_error_sum_v: float = 0.0

    @property
    def error_v(self) -> float | None:
        """The mean error of trips with the new bundle."""
        return self.error_sum_v / self.trips if self.trips else None

    @property
    def old_error_v(self) -> float | None:
        """The mean error of the same vehicles' last trips before."""
        return self.old_error_sum_v / self.old_trips if self.old_trips else None


@dataclass(frozen=True)
class Halt:
    """It stops by itself, and why."""

    kind: HaltKind
    why: str


Step = Literal["wait", "order", "soak", "next_stage", "finish"] | Halt


def next_step(
    plan: Plan, state: State, stage: int, since: float, tally: Tally, now: float, *, is_left: bool
) -> Step:
    """What to do now; `since` is when the stage was ordered (or resumed), in UNIX seconds.

    `is_left` says whether vehicles of the stage have no order yet.
    """
    if state not in {"running", "soaking"}:
        return "wait"
    halt = halted(plan.rules, tally, now - since if state == "soaking" else None)
    if halt is not None:
        return halt
    if state == "running":
        return "order" if is_left else "soak"
    if now - since < plan.soak_s or not _has_heard(plan.rules, tally):
        return "wait"
    return "next_stage" if stage + 1 < len(plan.stages_percent) else "finish"


def halted(rules: Rules, tally: Tally, soaked_s: float | None) -> Halt | None:
    """The first rule that is broken; `soaked_s` None: the stage is still being ordered."""
    return (
        _refusals(rules, tally, soaked_s is not None)
        or _errors(rules, tally)
        or _silence(rules, tally, soaked_s)
    )


def _refusals(rules: Rules, tally: Tally, is_ordered: bool) -> Halt | None:  # noqa: FBT001
    """Of fewer vehicles than would be enough, all that there are, once they are known."""
    answers = tally.answers - tally.seen_answers
    refused = tally.refused - tally.seen_refused
    enough = rules.min_answers
    if is_ordered:
        enough = min(enough, tally.ordered - tally.seen_answers)
    if rules.refused_share is None or answers < max(enough, 1):
        return None
    if refused <= rules.refused_share * answers:
        return None
    return Halt(
        "refusals",
        f"{refused} of {answers} vehicles refused it or rolled it back, more than the "
        f"{rules.refused_share:.3g} that are allowed",
    )


def _errors(rules: Rules, tally: Tally) -> Halt | None:
    error_v, old_v = tally.error_v, tally.old_error_v
    if rules.error_factor is None or error_v is None or old_v is None:
        return None
    if tally.trips < rules.min_trips or error_v <= rules.error_factor * old_v:
        return None
    return Halt(
        "errors",
        f"the mean error of {tally.trips} trips with it is {error_v:.4g} V, more than "
        f"{rules.error_factor:.3g} times the {old_v:.4g} V before",
    )


def _silence(rules: Rules, tally: Tally, soaked_s: float | None) -> Halt | None:
    if rules.answers_within_s is None or soaked_s is None or _has_heard(rules, tally):
        return None
    if soaked_s <= rules.answers_within_s:
        return None
    return Halt(
        "silence",
        f"{tally.answers} of {tally.ordered} vehicles have answered within "
        f"{rules.answers_within_s:.0f} s",
    )


def _has_heard(rules: Rules, tally: Tally) -> bool:
    return tally.answers >= min(rules.min_answers, tally.ordered)
