"""Rank inputs and candidate parameters by Sobol indices, and select the parameters to calibrate.

The voltages come from a .tflite that has every candidate as a parameter: the indices describe the
very graph that vehicles run. Must never rank a parameter against an input: inputs move the voltage
most, and nobody calibrates them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from SALib.analyze import sobol as sobol_analysis
from SALib.sample import sobol as sobol_sampling

from cloud.training.bundle_writer import in_memory
from cloud.training.candidates import Candidate
from cloud.training.errors import OptionError
from cloud.training.network import TrainingRecord
from cloud.training.selection import Choice, Selected, select, unsupported
from cloud.training.tflite_writer import write_tflite
from common.manifest import Manifest, PairIndex, Sensitivity, SobolIndex
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

PARAMETER_SPREAD: Final = 2.0  # prior standard deviations to each side of the nominal value
MIN_SAMPLES: Final = 2
RESAMPLES: Final = 50
MAX_PAIRS: Final = 40
INPUT_REASON: Final = "an input of the model, not a parameter"


@dataclass(frozen=True)
class SobolSettings:
    """Base samples (a power of two) and the seed of the sequence and of the resampling."""

    samples: int = 1024
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < MIN_SAMPLES or self.samples & (self.samples - 1):
            remedy = "Sobol sequences are balanced for 128, 256, 512, 1024 ... samples."
            raise OptionError("samples", f"{self.samples} is no power of two", remedy)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The indices with the reasons, ready for the manifest, and the parameters that were chosen."""

    sensitivity: Sensitivity
    chosen: tuple[Candidate, ...]


def rank(
    manifest: Manifest,
    record: TrainingRecord,
    candidates: Sequence[Candidate],
    choice: Choice,
    settings: SobolSettings,
) -> Ranking:
    """Sobol indices over the joint ranges of the inputs and all candidates, and the selection.

    Inputs vary over their training range, candidates two prior standard deviations about nominal
    (inside their bounds), all uniformly and independently. Candidates of which training says
    nothing stay out, unless chosen by name. Raises UnknownCandidateError.
    """
    doubts = {c.name: unsupported(c, manifest.feature_names, record) for c in candidates}
    left_out = [c for c in candidates if doubts[c.name] and c.name not in choice.names]
    candidates = [c for c in candidates if c not in left_out]
    model = candidates_model(manifest, record, candidates)
    problem = _problem(manifest, record, candidates)
    seed = settings.seed + 1  # SALib's analysis takes 0 for "no seed"
    points = sobol_sampling.sample(problem, settings.samples, seed=seed)
    inputs = len(manifest.features)
    voltages = model.predict(points[:, :inputs], points[:, inputs:])
    found = sobol_analysis.analyze(
        problem, voltages, num_resamples=RESAMPLES, seed=seed, print_to_console=False
    )
    total = found["ST"][inputs:]
    selected = select(candidates, total, effects(model, record.rows, candidates), choice)
    sensitivity = Sensitivity(
        samples=settings.samples,
        indices=[
            *_indices(manifest, candidates, found, selected),
            *(_not_ranked(candidate.name, doubts[candidate.name]) for candidate in left_out),
        ],
        pairs=_pairs(_names(manifest, candidates), found),
    )
    return Ranking(sensitivity, tuple(candidates[c] for c in selected.chosen))


def candidates_model(
    manifest: Manifest, record: TrainingRecord, candidates: Sequence[Candidate]
) -> VoltageModel:
    """The network with every candidate as a parameter, in the interpreter that vehicles use."""
    model = write_tflite(record.network, [candidate.target for candidate in candidates])
    wide = msgspec.structs.replace(
        manifest,
        parameters=[candidate.parameter for candidate in candidates],
        model_sha256=hashlib.sha256(model).hexdigest(),
    )
    return VoltageModel(in_memory(wide, model, Path("all candidates")))


def effects(model: VoltageModel, rows: FloatArray, candidates: Sequence[Candidate]) -> FloatArray:
    """Change in voltage [m, C] on each row when a candidate moves by one prior standard deviation.

    Central differences about the nominal values.
    """
    nominal = np.array([candidate.parameter.nominal for candidate in candidates])
    half = np.diag([candidate.parameter.prior_std / 2 for candidate in candidates])
    thetas = np.concatenate([nominal + half, nominal - half])
    voltages = model.predict(np.tile(rows, (len(thetas), 1)), np.repeat(thetas, len(rows), axis=0))
    up, down = voltages.reshape(2, len(candidates), len(rows))
    return np.asarray(up - down).T


def _problem(
    manifest: Manifest, record: TrainingRecord, candidates: Sequence[Candidate]
) -> dict[str, Any]:
    return {
        "num_vars": len(manifest.features) + len(candidates),
        # An array, because SALib 1.5 hands the names to pandas, which since 3.0 refuses a list.
        "names": np.array(_names(manifest, candidates), dtype=object),
        "bounds": [
            *(_with_width(low, high) for low, high in record.feature_ranges.tolist()),
            *(_spread(candidate) for candidate in candidates),
        ],
    }


def _names(manifest: Manifest, candidates: Sequence[Candidate]) -> list[str]:
    return [*manifest.feature_names, *(candidate.name for candidate in candidates)]


def _with_width(low: float, high: float) -> list[float]:
    """SALib refuses an empty range; a constant input gets a sliver of one, and an index near 0."""
    sliver = 1e-6 * max(abs(low), 1.0) if low == high else 0.0
    return [low - sliver, high + sliver]


def _spread(candidate: Candidate) -> list[float]:
    parameter = candidate.parameter
    reach = PARAMETER_SPREAD * parameter.prior_std
    return [
        max(parameter.nominal - reach, parameter.lower),
        min(parameter.nominal + reach, parameter.upper),
    ]


def _indices(
    manifest: Manifest, candidates: Sequence[Candidate], found: Any, selected: Selected
) -> list[SobolIndex]:
    inputs = len(manifest.features)
    reasons = [INPUT_REASON] * inputs + list(selected.reasons)
    return [
        SobolIndex(
            name=name,
            first=_rounded(found["S1"][i]),
            first_ci=_rounded(found["S1_conf"][i]),
            total=_rounded(found["ST"][i]),
            total_ci=_rounded(found["ST_conf"][i]),
            selected=i - inputs in selected.chosen,
            reason=reasons[i],
        )
        for i, name in enumerate(_names(manifest, candidates))
    ]


def _not_ranked(name: str, doubt: str) -> SobolIndex:
    return SobolIndex(name, 0.0, 0.0, 0.0, 0.0, reason=f"not ranked: {doubt}")


def _pairs(names: Sequence[str], found: Any) -> list[PairIndex]:
    """The strongest pairs among those above their confidence interval and not above a total."""
    most = found["ST"] + found["ST_conf"]
    pairs = [
        PairIndex(first, second, _rounded(found["S2"][i, j]), _rounded(found["S2_conf"][i, j]))
        for i, first in enumerate(names)
        for j, second in enumerate(names)
        # A pair is part of the total index of either: what exceeds that is sampling noise.
        if i < j and found["S2_conf"][i, j] < found["S2"][i, j] <= min(most[i], most[j])
    ]
    return sorted(pairs, key=lambda pair: -pair.index)[:MAX_PAIRS]


def _rounded(value: float) -> float:
    return round(float(value), 6)
