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
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.training.bundle_writer import in_memory
from cloud.training.candidates import Candidate, Kind
from cloud.training.identifiability import after_many, trip_information, typical_trip
from cloud.training.network import TrainingRecord
from cloud.training.selection import Choice, Evidence, select, unsupported
from cloud.training.sobol import SobolSettings, sobol_indices
from cloud.training.study import write_study
from cloud.training.tflite_writer import write_tflite
from common.discrepancy import correlation
from common.manifest import Manifest, Sensitivity, SobolIndex
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

PARAMETER_SPREAD: Final = 2.0  # prior standard deviations to each side of the nominal value
INPUTS: Final = "inputs"
GROUPS: Final = {
    Kind.INPUT_GAIN: "gains of inputs",
    Kind.INPUT_OFFSET: "offsets of inputs",
    Kind.RESPONSE: "responses to inputs",
    Kind.OUTPUT_GAIN: "output",
    Kind.OUTPUT_OFFSET: "output",
    Kind.LAST_BIAS: "output",
    Kind.LAST_WEIGHT: "hidden weights",
}


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
    inputs = len(manifest.features)
    groups = _groups(inputs, candidates)
    found = sobol_indices(
        lambda points: model.predict(points[:, :inputs], points[:, inputs:]),
        _bounds(record, candidates),
        list(groups.values()),
        settings,
    )
    total = found.total.value[inputs : inputs + len(candidates)]
    evidence = _evidence(manifest, record, candidates, model, total)
    selected = select(evidence, choice)
    sensitivity = write_study(manifest.feature_names, groups, found, evidence, selected, choice)
    unranked = [_not_ranked(candidate.name, doubts[candidate.name]) for candidate in left_out]
    sensitivity = msgspec.structs.replace(sensitivity, indices=[*sensitivity.indices, *unranked])
    return Ranking(sensitivity, tuple(candidates[c] for c in selected.chosen))


def _evidence(
    manifest: Manifest,
    record: TrainingRecord,
    candidates: Sequence[Candidate],
    model: VoltageModel,
    total: FloatArray,
) -> Evidence:
    information = trip_information(
        effects(model, record.rows, candidates),
        record.trip,
        lambda rows: _whitened(rows, manifest),
    )
    return Evidence(
        names=tuple(candidate.name for candidate in candidates),
        total=total,
        one_trip=information[typical_trip(information)],
        many_trips=after_many(information),
    )


def _whitened(rows: FloatArray, manifest: Manifest) -> FloatArray:
    """Effects along one trip [m, C] in the coordinates, and units, of the filter's noise."""
    along = correlation(len(rows), manifest.discrepancy_correlation)
    own = manifest.model_discrepancy_std_v**2 * along.variances
    std = np.sqrt(manifest.measurement_noise_std_v**2 + own)
    return np.asarray(along.rotated(rows.T) / std).T


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


def _bounds(record: TrainingRecord, candidates: Sequence[Candidate]) -> FloatArray:
    return np.array([*record.feature_ranges.tolist(), *(_spread(c) for c in candidates)])


def _spread(candidate: Candidate) -> list[float]:
    parameter = candidate.parameter
    reach = PARAMETER_SPREAD * parameter.prior_std
    return [
        max(parameter.nominal - reach, parameter.lower),
        min(parameter.nominal + reach, parameter.upper),
    ]


def _groups(inputs: int, candidates: Sequence[Candidate]) -> dict[str, list[int]]:
    """Numbers of the members by the group's name."""
    groups = {INPUTS: list(range(inputs))}
    for i, candidate in enumerate(candidates, start=inputs):
        groups.setdefault(GROUPS[candidate.target.kind], []).append(i)
    return groups


def _not_ranked(name: str, doubt: str) -> SobolIndex:
    return SobolIndex(name, 0.0, 0.0, 0.0, 0.0, reason=f"not ranked: {doubt}")
