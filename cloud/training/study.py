"""The study as the manifest keeps it: indices, what is no noise among the pairs, what was learnt.

Pure. Must never choose; it writes down what the estimates and the selection say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Final

import msgspec
import numpy as np

from cloud.training.explanation import explain
from cloud.training.identifiability import (
    MANY_TRIPS,
    Knowledge,
    knowledge,
    pairwise_correlation,
    weakest_in_words,
)
from cloud.training.selection import Choice, Evidence, Selected
from cloud.training.sobol import SIGMAS_95, Indices
from common.manifest import (
    GroupIndex,
    Identifiability,
    Learnt,
    PairIndex,
    Sensitivity,
    SobolIndex,
)

MAX_PAIRS: Final = 40
# The chance that any pair at all is called a finding and is none: intervals are widened for their
# number (Bonferroni).
FALSE_PAIRS: Final = 0.05
COMPARED: Final = 8
INPUT_REASON: Final = "an input of the model, not a parameter"


def write_study(
    inputs: Sequence[str],
    groups: Mapping[str, Sequence[int]],
    found: Indices,
    evidence: Evidence,
    selected: Selected,
    choice: Choice,
) -> Sensitivity:
    """Everything that was found. `groups` hold numbers of inputs, then of candidates."""
    names = [*inputs, *evidence.names]
    study = Sensitivity(
        samples=found.samples,
        indices=_indices(names, len(inputs), found, selected),
        pairs=_pairs(names, found),
        pairs_tested=len(names) * (len(names) - 1) // 2,
        groups=_group_indices(names, groups, found),
        identifiability=_identifiability(evidence, selected),
    )
    told = explain(study, evidence.names, choice, settled=found.settled)
    return msgspec.structs.replace(study, explanation=told)


def _indices(
    names: Sequence[str], inputs: int, found: Indices, selected: Selected
) -> list[SobolIndex]:
    reasons = [INPUT_REASON] * inputs + list(selected.reasons)
    return [
        SobolIndex(
            name,
            *_numbers(found, i),
            selected=i - inputs in selected.chosen,
            reason=reasons[i],
        )
        for i, name in enumerate(names)
    ]


def _group_indices(
    names: Sequence[str], groups: Mapping[str, Sequence[int]], found: Indices
) -> list[GroupIndex]:
    return [
        GroupIndex(name, [names[i] for i in members], *_numbers(found, at))
        for at, (name, members) in enumerate(groups.items(), start=len(names))
    ]


def _numbers(found: Indices, i: int) -> tuple[float, float, float, float]:
    """First order, total and their intervals as the manifest holds them."""
    first, total = found.first, found.total
    first_ci, total_ci = _rounded(first.ci[i]), _rounded(total.ci[i])
    return _rounded(first.value[i]), first_ci, _rounded(total.value[i]), total_ci


def _pairs(names: Sequence[str], found: Indices) -> list[PairIndex]:
    """The strongest pairs of those that are no noise: above the intervals of so many tests."""
    first, second = np.triu_indices(len(names), k=1)
    index, ci = found.pairs.value[first, second], found.pairs.ci[first, second]
    tail = NormalDist().inv_cdf(1.0 - FALSE_PAIRS / max(len(first), 1))
    most = found.total.value + found.total.ci
    # A pair is part of the total index of either: what exceeds that is sampling noise.
    told = (index > ci * tail / SIGMAS_95) & (index > ci)
    told &= index <= np.minimum(most[first], most[second])
    strongest = np.flatnonzero(told)[np.argsort(-index[told], kind="stable")][:MAX_PAIRS]
    return [
        PairIndex(names[first[k]], names[second[k]], _rounded(index[k]), _rounded(ci[k]))
        for k in strongest
    ]


def _identifiability(evidence: Evidence, selected: Selected) -> Identifiability:
    names = [evidence.names[c] for c in selected.chosen]
    one = knowledge(evidence.one_trip, selected.chosen)
    many = knowledge(evidence.many_trips, selected.chosen)
    strongest = np.argsort(-evidence.total, kind="stable")[:COMPARED].tolist()
    compared = list(dict.fromkeys([*selected.chosen, *strongest]))
    pairwise = pairwise_correlation(evidence.one_trip, compared)
    return Identifiability(
        names=names,
        learnt=[_learnt(1, one), _learnt(MANY_TRIPS, many)],
        weakest=f"after one typical trip {weakest_in_words(names, one)}",
        compared=[evidence.names[c] for c in compared],
        pairwise=pairwise.round(3).tolist(),
    )


def _learnt(trips: int, found: Knowledge) -> Learnt:
    return Learnt(
        trips=trips,
        posterior_std=found.std.round(4).tolist(),
        correlation=found.correlation.round(3).tolist(),
        eigenvalues=[float(f"{value:.4g}") for value in found.eigenvalues],
        condition_number=float(f"{found.condition:.4g}"),
        collinearity=float(f"{found.collinearity:.4g}"),
    )


def _rounded(value: float) -> float:
    return round(float(value), 6)
