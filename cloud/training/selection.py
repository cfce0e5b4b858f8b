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
from cloud.training.identifiability import LARGEST_CONDITION, MANY_TRIPS, knowledge, percent
from cloud.training.network import TrainingRecord

FloatArray = npt.NDArray[np.float64]

# Beside a partner with this correlation a parameter is four times as uncertain as alone,
# 1/√(1 − ρ²) = 4.1. Gain and offset in charge of the measured cells stand at 0.96, and estimating
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
        return f"{MANY_TRIPS} typical trips leave {percent(alone)} of its prior doubt"
    beside = [i for i in chosen if _moves(evidence, i)]
    if not beside:
        return ""
    return (
        _alike(evidence, c, beside)
        or _combined(evidence, c, beside, alone)
        or _spoilt(evidence, c, beside)
    )


def _alike(evidence: Evidence, c: int, beside: Sequence[int]) -> str:
    """One of those before it moves the voltage as it does."""
    found = [(i, _strongest(evidence, [i, c])) for i in beside]
    partner, correlation = max(found, key=lambda pair: abs(pair[1]))
    if abs(correlation) <= MAX_CORRELATION:
        return ""
    fixed = "sum" if correlation < 0 else "difference"
    return (
        f"it cannot be told from {evidence.names[partner]}: the data fix their {fixed} only, "
        f"posterior correlation {correlation:+.3f}"
    )


def _combined(evidence: Evidence, c: int, beside: Sequence[int], alone: float) -> str:
    """Several of those before it together move the voltage as it does."""
    members = [*beside, c]
    found = knowledge(evidence.many_trips, members)
    others = " and ".join(evidence.names[i] for i in beside)
    told = f"it cannot be told from {others}{' together' if len(beside) > 1 else ''}"
    if found.collinearity > MAX_COLLINEARITY:
        infinite = found.collinearity >= LARGEST_CONDITION
        number = "without bound" if infinite else f"{found.collinearity:,.0f}"
        return f"{told}, condition number {number} at equal scale"
    correlation = _strongest(evidence, members)
    if abs(correlation) > MAX_CORRELATION:
        return f"{told}, posterior correlation {correlation:+.3f}"
    left = float(found.std[-1])
    if left > MAX_POSTERIOR_STD:
        return (
            f"{told}: {MANY_TRIPS} typical trips leave {percent(left)} of its prior doubt, "
            f"{percent(alone)} without {'them' if len(beside) > 1 else 'it'}"
        )
    return ""


def _strongest(evidence: Evidence, members: Sequence[int]) -> float:
    """Correlation of the last member with any before it, after one trip or many."""
    both = (knowledge(f, members) for f in (evidence.one_trip, evidence.many_trips))
    return float(max(np.concatenate([found.correlation[-1, :-1] for found in both]), key=abs))


def _spoilt(evidence: Evidence, c: int, beside: Sequence[int]) -> str:
    """Which of those before it would no longer be known beside the newcomer."""
    before = knowledge(evidence.many_trips, beside).std
    after = knowledge(evidence.many_trips, [*beside, c]).std[:-1]
    for i, without, std in zip(beside, before, after, strict=True):
        if without <= MAX_POSTERIOR_STD < std:
            return f"beside it {evidence.names[i]} would keep {percent(std)} of its prior doubt"
    return ""
