"""Why these parameters were selected, in a paragraph for the report and the terminal.

Pure words. Must never decide: it tells what the indices and the selection hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cloud.training.identifiability import percent
from cloud.training.selection import Choice
from common.manifest import Identifiability, Learnt, Sensitivity, SobolIndex

TOLD_LEFT_OUT: Final = 3


def explain(found: Sensitivity, candidates: Sequence[str], choice: Choice, *, settled: bool) -> str:
    """The paragraph. `candidates` are those that were ranked."""
    indices = {index.name: index for index in found.indices}
    ranked = sorted((indices[name] for name in candidates), key=lambda index: -index.total)
    sentences = [
        _selected([index for index in ranked if index.selected], len(ranked), choice),
        *_doubtful(ranked),
        *(_learnt(found.identifiability) if found.identifiability else ()),
        *(_passed_over(ranked) if choice.names else _left_out(ranked)),
        _samples(found, settled=settled),
    ]
    return " ".join(sentences)


def _selected(selected: Sequence[SobolIndex], of: int, choice: Choice) -> str:
    told = _list([f"{i.name} (total index {i.total:.3f} ± {i.total_ci:.3f})" for i in selected])
    if choice.names:
        return f"Chosen by name from {of} candidates: {told}."
    return f"Of {of} candidates, the most influential that trips can tell apart: {told}."


def _doubtful(ranked: Sequence[SobolIndex]) -> list[str]:
    """The doubts that did not keep a candidate from being chosen."""
    parted = ((index, index.reason.partition(", though ")[2]) for index in ranked if index.selected)
    return [f"Doubtful is {index.name}: {doubt}." for index, doubt in parted if doubt]


def _learnt(found: Identifiability) -> list[str]:
    one, many = found.learnt[0], found.learnt[-1]
    left = (
        f"Of the doubt before any data, {_left(found.names, one)} is left after one typical trip, "
        f"{_left(found.names, many)} after {many.trips}"
    )
    if len(found.names) == 1:
        return [f"{left}."]
    condition = f"the condition number is {one.condition_number:,.3g} after one trip"
    return [f"{left}; {condition}.", f"{_capital(found.weakest)}."]


def _left(names: Sequence[str], learnt: Learnt) -> str:
    shares = (percent(std) for std in learnt.posterior_std)
    return _list([f"{share} for {name}" for name, share in zip(names, shares, strict=True)])


def _left_out(ranked: Sequence[SobolIndex]) -> list[str]:
    """The strongest that are influential and still were not taken."""
    parted = [(index, index.reason.partition("left out: influential, but ")[2]) for index in ranked]
    told = [f"{index.name} ({why})" for index, why in parted if why]
    if not told:
        return []
    more = f" and {len(told) - TOLD_LEFT_OUT} more" if len(told) > TOLD_LEFT_OUT else ""
    return [f"Influential, but left out: {'; '.join(told[:TOLD_LEFT_OUT])}{more}."]


def _passed_over(ranked: Sequence[SobolIndex]) -> list[str]:
    """Those that stand before the weakest of the named."""
    last = max(place for place, index in enumerate(ranked) if index.selected)
    stronger = [index.name for index in ranked[:last] if not index.selected]
    return [f"Stronger, but not named: {_list(stronger)}."] if stronger else []


def _samples(found: Sensitivity, *, settled: bool) -> str:
    widest = max(index.total_ci for index in found.indices)
    limit = "" if settled else ", the most that were allowed: the intervals are still wide"
    return (
        f"The indices come from {found.samples:,} base samples{limit}; the widest interval of a "
        f"total index is ± {widest:.3f}. Of {found.pairs_tested} pairs {len(found.pairs)} act "
        "together beyond the noise."
    )


def _list(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
