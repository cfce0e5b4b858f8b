"""Which candidates become parameters: the most influential that trips can tell apart.

Pure. Not ranked at all is a candidate that, moved by one prior standard deviation, takes an input
further than the whole range that training saw: the network has learnt nothing there. Then the rule:
in the order of their total Sobol index, take a candidate if it and those already taken stay
identifiable together; stop at the number asked for. Names given by the user are taken as they are,
and the reason says what is doubtful. Every candidate gets one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloud.training.candidates import Candidate, Kind
from cloud.training.errors import OptionError, UnknownCandidateError
from cloud.training.identifiability import LARGEST_CONDITION, MANY_TRIPS, Knowledge, knowledge
from cloud.training.network import TrainingRecord

FloatArray = npt.NDArray[np.float64]

# Beside a partner with this correlation a parameter is four times as uncertain as alone,
# 1/√(1 − ρ²) = 4.1. Gain and offset in charge of the measured cells stand at 0.955, and estimating
# both was worth it there (docs/decisions.md).
MAX_CORRELATION: Final = 0.97
# Ten trips must at least halve the doubt, or the parameter mirrors its prior.
MAX_POSTERIOR_STD: Final = 0.5
# A condition index of 30: from there on Belsley, Kuh and Welsch call a collinearity strong.
MAX_COLLINEARITY: Final = 900.0
# One per cent of the variance: what has less is not missed.
INFLUENTIAL: Final = 0.01
CONSTANTS: Final = ("offset:output", "bias:output")


@dataclass(frozen=True)
class Choice:
    """Exactly the candidates of `names` when there are any, otherwise up to `count` by the rule."""

    count: int = 2
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise OptionError("select", f"{self.count} is too few", "Select 1 or more.")
        if len(set(self.names)) != len(self.names):
            raise OptionError("parameters", "a name stands twice", "Give each name once.")


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of C candidates: their total indices [C], and F of one typical trip and of ten [C, C]."""

    names: tuple[str, ...]
    total: FloatArray
    one_trip: FloatArray
    many_trips: FloatArray


@dataclass(frozen=True)
class Selected:
    """Numbers of the chosen candidates, in order of choice, and one reason per candidate."""

    chosen: tuple[int, ...]
    reasons: tuple[str, ...]


def unsupported(candidate: Candidate, names: Sequence[str], record: TrainingRecord) -> str:
    """Why training says nothing about this candidate's effect; empty when it does.

    `names` are those of the features.
    """
    target, std = candidate.target, candidate.parameter.prior_std
    if target.kind not in {Kind.INPUT_GAIN, Kind.INPUT_OFFSET}:
        return ""
    for i in target.indices:
        typical = float(np.sqrt(np.square(record.rows[:, i]).mean()))
        move = std * typical if target.kind is Kind.INPUT_GAIN else std
        width = float(np.ptp(record.feature_ranges[i]))
        if move > width:
            return f"it moves {names[i]} by {move:.2g}, training saw a range of {width:.2g} only"
    return ""


def select(evidence: Evidence, choice: Choice) -> Selected:
    """Apply the rule. Raises UnknownCandidateError, OptionError when nothing has any effect."""
    order = _order(evidence)
    if choice.names:
        return _by_name(evidence, order, choice.names)
    return _by_rank(evidence, order, choice.count)


def _order(evidence: Evidence) -> list[int]:
    """By total index; of the two names of a constant voltage the plainer one first."""
    order: list[int] = np.argsort(-evidence.total, kind="stable").tolist()
    names = evidence.names
    twins = [order.index(names.index(name)) for name in CONSTANTS if name in names]
    if len(twins) == len(CONSTANTS) and twins[0] > twins[1]:
        order[twins[0]], order[twins[1]] = order[twins[1]], order[twins[0]]
    return order


def _by_rank(evidence: Evidence, order: Sequence[int], count: int) -> Selected:
    chosen: list[int] = []
    reasons = [""] * len(order)
    for place, c in enumerate(order, start=1):
        doubt = _doubt(evidence, c, chosen)
        reasons[c] = _rank(evidence, place)
        if not doubt and len(chosen) < count:
            chosen.append(c)
            reasons[c] += "; chosen"
        elif doubt:
            but = "influential, but " if evidence.total[c] >= INFLUENTIAL else ""
            reasons[c] += f"; left out: {but}{doubt}"
        else:
            reasons[c] += f"; not needed: {count} stronger were asked for"
    if chosen:
        return Selected(tuple(chosen), tuple(reasons))
    return _best_of_none(evidence, order, reasons)


def _best_of_none(evidence: Evidence, order: Sequence[int], reasons: list[str]) -> Selected:
    """A model needs a parameter: the most influential, with the doubt said."""
    moving = [c for c in order if _moves(evidence, c)]
    if not moving:
        problem = "no candidate has any effect on the voltage"
        raise OptionError("select", problem, "Train again on trips in which the voltage changes.")
    c = moving[0]
    rank, doubt = _rank(evidence, order.index(c) + 1), _doubt(evidence, c, [])
    reasons[c] = f"{rank}; chosen, since a model needs a parameter, though {doubt}"
    return Selected((c,), tuple(reasons))


def _by_name(evidence: Evidence, order: Sequence[int], wanted: Sequence[str]) -> Selected:
    names = evidence.names
    for name in wanted:
        if name not in names:
            raise UnknownCandidateError(name, names)
    chosen = [names.index(name) for name in wanted]
    reasons = [""] * len(names)
    for place, c in enumerate(order, start=1):
        rank = _rank(evidence, place)
        if c not in chosen:
            reasons[c] = f"{rank}; others were chosen by name"
            continue
        doubt = _doubt(evidence, c, chosen[: chosen.index(c)])
        reasons[c] = f"{rank}; chosen by name" + (f", though {doubt}" if doubt else "")
    return Selected(tuple(chosen), tuple(reasons))


def _rank(evidence: Evidence, place: int) -> str:
    return f"rank {place} of {len(evidence.names)} by total index"


def _moves(evidence: Evidence, c: int) -> bool:
    return bool(evidence.many_trips[c, c] > 0)


def _doubt(evidence: Evidence, c: int, chosen: Sequence[int]) -> str:
    """Why candidate `c` should not join the chosen ones; empty when nothing speaks against it."""
    if not _moves(evidence, c):
        return "it has no effect on the voltage"
    alone = float(knowledge(evidence.many_trips, [c]).std[0])
    if alone > MAX_POSTERIOR_STD:
        return f"{MANY_TRIPS} typical trips leave {100 * alone:.0f} % of its prior doubt"
    beside = [i for i in chosen if _moves(evidence, i)]
    if not beside:
        return ""
    names = [evidence.names[i] for i in beside]
    one, many = (knowledge(f, [*beside, c]) for f in (evidence.one_trip, evidence.many_trips))
    before = knowledge(evidence.many_trips, beside)
    return (
        _correlated(names, one, many)
        or _collinear(names, alone, many)
        or _spoilt(names, before, many)
    )


def _correlated(names: Sequence[str], *found: Knowledge) -> str:
    """The newcomer, last in `found`, against each of those before it."""
    with_each = [knowledge.correlation[-1, :-1] for knowledge in found]
    strongest = max(np.concatenate(with_each), key=abs)
    if abs(strongest) <= MAX_CORRELATION:
        return ""
    partner = names[int(np.argmax(np.max(np.abs(with_each), axis=0)))]
    fixed = "sum" if strongest < 0 else "difference"
    return (
        f"it cannot be told from {partner}: the data fix their {fixed} only, posterior correlation "
        f"{strongest:+.3f}"
    )


def _collinear(names: Sequence[str], alone: float, many: Knowledge) -> str:
    others = " and ".join(names)
    together = float(many.std[-1])
    if many.collinearity > MAX_COLLINEARITY:
        infinite = many.collinearity >= LARGEST_CONDITION
        number = "without bound" if infinite else f"{many.collinearity:,.0f}"
        return f"it cannot be told from {others} together, condition number {number} at equal scale"
    if together > MAX_POSTERIOR_STD:
        return (
            f"it cannot be told from {others}: beside them {MANY_TRIPS} typical trips leave "
            f"{100 * together:.0f} % of its prior doubt, {100 * alone:.0f} % without them"
        )
    return ""


def _spoilt(names: Sequence[str], before: Knowledge, many: Knowledge) -> str:
    """Which of those before it would no longer be known beside the newcomer."""
    for name, without, std in zip(names, before.std, many.std, strict=False):
        if without <= MAX_POSTERIOR_STD < std:
            return f"beside it {name} would keep {100 * std:.0f} % of its prior doubt"
    return ""
