"""Which candidates become parameters: the strongest that a trip can tell apart.

Pure. Not ranked at all is a candidate that, moved by one prior standard deviation, takes an input
further than the whole range that training saw: the network has learnt nothing there. Then the rule:
in the order of their total Sobol index, take a candidate unless its effect on the
training rows is, but for a few per cent, a combination of the effects of those already taken; stop
at the number asked for. Two such parameters cannot be estimated together: the data fix only their
combination. Names given by the user are taken as they are, and the reason says what is doubtful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloud.training.candidates import Candidate, Kind
from cloud.training.errors import OptionError, UnknownCandidateError
from cloud.training.network import TrainingRecord

FloatArray = npt.NDArray[np.float64]

MAX_COSINE: Final = 0.98
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


def select(
    candidates: Sequence[Candidate], total: FloatArray, effects: FloatArray, choice: Choice
) -> Selected:
    """Apply the rule to total indices [C] and effects [m, C]. Raises UnknownCandidateError."""
    names = [candidate.name for candidate in candidates]
    order = _order(names, total)
    if choice.names:
        return _by_name(names, order, effects, choice.names)
    return _by_rank(names, order, effects, choice.count)


def _order(names: Sequence[str], total: FloatArray) -> list[int]:
    """By total index; of the two names of a constant voltage the plainer one first."""
    order: list[int] = np.argsort(-total, kind="stable").tolist()
    twins = [order.index(names.index(name)) for name in CONSTANTS if name in names]
    if len(twins) == len(CONSTANTS) and twins[0] > twins[1]:
        order[twins[0]], order[twins[1]] = order[twins[1]], order[twins[0]]
    return order


def cosine_to_span(effect: FloatArray, others: FloatArray) -> float:
    """Cosine of the angle between `effect` [m] and the span of the columns of `others` [m, k].

    1 means that `effect` is a combination of them, 0 that it has nothing in common with them.
    """
    if not others.shape[1]:
        return 0.0
    scaled = others / np.linalg.norm(others, axis=0)
    orthonormal = np.linalg.svd(scaled, full_matrices=False)[0]
    return min(float(np.linalg.norm(orthonormal.T @ effect) / np.linalg.norm(effect)), 1.0)


def _by_rank(
    names: Sequence[str], order: Sequence[int], effects: FloatArray, count: int
) -> Selected:
    chosen: list[int] = []
    reasons = [""] * len(names)
    for place, c in enumerate(order, start=1):
        rank = f"rank {place} of {len(names)} by total index"
        doubt = _doubt(c, chosen, names, effects)
        if doubt:
            reasons[c] = f"{rank}; left out: {doubt}"
        elif len(chosen) < count:
            chosen.append(c)
            reasons[c] = f"{rank}; chosen"
        else:
            reasons[c] = f"{rank}; not needed: {count} stronger were asked for"
    if not chosen:
        problem = "no candidate has any effect on the voltage"
        raise OptionError("select", problem, "Train again on trips in which the voltage changes.")
    return Selected(tuple(chosen), tuple(reasons))


def _by_name(
    names: Sequence[str], order: Sequence[int], effects: FloatArray, wanted: Sequence[str]
) -> Selected:
    for name in wanted:
        if name not in names:
            raise UnknownCandidateError(name, tuple(names))
    chosen = [names.index(name) for name in wanted]
    reasons = [""] * len(names)
    for place, c in enumerate(order, start=1):
        rank = f"rank {place} of {len(names)} by total index"
        if c not in chosen:
            reasons[c] = f"{rank}; others were chosen by name"
            continue
        doubt = _doubt(c, chosen[: chosen.index(c)], names, effects)
        reasons[c] = f"{rank}; chosen by name" + (f", though {doubt}" if doubt else "")
    return Selected(tuple(chosen), tuple(reasons))


def _doubt(c: int, chosen: Sequence[int], names: Sequence[str], effects: FloatArray) -> str:
    """Why candidate `c` should not join the chosen ones; empty when nothing speaks against it."""
    if not np.any(effects[:, c]):
        return "it has no effect on the voltage"
    against = [i for i in chosen if np.any(effects[:, i])]
    cosine = cosine_to_span(effects[:, c], effects[:, against])
    if cosine <= MAX_COSINE:
        return ""
    others = " and ".join(names[i] for i in against)
    return f"its effect cannot be told from that of {others} (cosine {cosine:.3f})"
