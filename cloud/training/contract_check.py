"""Does a model that loads also keep the contract? Finite, row by row, and moved by each parameter.

Pure apart from running the model. Must never repair: it names the first thing that is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common.bundle import Bundle
from common.manifest import Parameter
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

ROWS: Final = 64
INFLUENCE_ROWS: Final = 256
BATCHES: Final = (1, 7)
PARAMETER_SPREAD: Final = 3.0  # prior standard deviations
FLOAT32_EPSILON: Final = float(np.finfo(np.float32).eps)
ABSOLUTE_TOLERANCE_V: Final = 1e-5


@dataclass(frozen=True)
class Problem:
    """What is wrong with a model, and what to do about it."""

    what: str
    remedy: str


def contract_problem(bundle: Bundle) -> Problem | None:
    """The first breach of the contract, over the declared ranges; None when it keeps all of it.

    Raises ModelContractError when tensors have other names, types or shapes, or it does not run.
    """
    model = VoltageModel(bundle)
    rng = np.random.default_rng(0)
    features = _features(bundle, rng, INFLUENCE_ROWS)
    thetas = _thetas(bundle.manifest.parameters, rng, INFLUENCE_ROWS)
    voltages = model.predict(features, thetas)
    if not np.isfinite(voltages).all():
        return _not_finite(bundle, features, voltages)
    return _batch_problem(model, features[:ROWS], thetas[:ROWS]) or _influence_problem(
        model, bundle, features
    )


def float32_tolerance_v(voltages: FloatArray, steps: float) -> float:
    """What float32 can tell apart: 1e-5 V for a cell, `steps` last places for a pack."""
    largest = float(np.abs(voltages).max())
    return max(ABSOLUTE_TOLERANCE_V, steps * FLOAT32_EPSILON * largest)


def _features(bundle: Bundle, rng: np.random.Generator, rows: int) -> FloatArray:
    low = np.array([feature.minimum for feature in bundle.manifest.features])
    high = np.array([feature.maximum for feature in bundle.manifest.features])
    return rng.uniform(low, high, (rows, len(low)))


def _thetas(parameters: list[Parameter], rng: np.random.Generator, rows: int) -> FloatArray:
    low, high = np.array([_reach(parameter) for parameter in parameters]).T
    return rng.uniform(low, high, (rows, len(low)))


def _reach(parameter: Parameter) -> tuple[float, float]:
    reach = PARAMETER_SPREAD * parameter.prior_std
    low, high = parameter.nominal - reach, parameter.nominal + reach
    return max(low, parameter.lower), min(high, parameter.upper)


def _not_finite(bundle: Bundle, features: FloatArray, voltages: FloatArray) -> Problem:
    at = int((~np.isfinite(voltages)).argmax())
    names = bundle.manifest.feature_names
    row = ", ".join(f"{n}={v:.4g}" for n, v in zip(names, features[at], strict=True))
    return Problem(
        f"it gives {voltages[at]} inside the declared ranges, at {row}",
        "Narrow the ranges of the features in the manifest, or correct the model.",
    )


def _batch_problem(model: VoltageModel, features: FloatArray, thetas: FloatArray) -> Problem | None:
    together = model.predict(features, thetas)
    tolerance_v = float32_tolerance_v(together, 16.0)
    for size in BATCHES:
        alone = model.predict(features[:size], thetas[:size])
        if np.abs(alone - together[:size]).max() > tolerance_v:
            return Problem(
                f"a row's voltage differs between {size} and {len(features)} rows",
                "Export the model so that each row depends on its own inputs only "
                "(no batch statistics), with a dynamic first dimension.",
            )
    return None


def _influence_problem(model: VoltageModel, bundle: Bundle, features: FloatArray) -> Problem | None:
    parameters = bundle.manifest.parameters
    nominal = np.array([parameter.nominal for parameter in parameters])
    before = model.predict(features, nominal)
    for p, parameter in enumerate(parameters):
        moved = nominal.copy()
        moved[p] = _reach(parameter)[1]
        change_v = float(np.abs(model.predict(features, moved) - before).max())
        if change_v <= FLOAT32_EPSILON * float(np.abs(before).max()):
            return Problem(
                f"the parameter {parameter.name!r} does not move the voltage",
                "Connect it in the graph, or leave it out of graph and manifest.",
            )
    return None
