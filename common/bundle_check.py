"""Whether a model answers sensibly where its manifest says that it may be asked.

Pure. Must never judge accuracy: that needs measured trips.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from common.manifest import Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

ROWS: Final = 256
PLAUSIBLE_SHARE: Final = 0.5
"""A network bends away at corners that no car visits; a model that fits is inside somewhere."""


def range_problem(model: VoltageModel, manifest: Manifest) -> str | None:
    """What is wrong with the predictions over the plausible ranges; None: nothing.

    Every voltage must be finite, at nominal parameters and at their bounds; at nominal ones the
    middle of the ranges and at least half of the rows must lie in the target's plausible range.
    """
    rows = _rows(manifest)
    low, nominal, high = (_parameters(manifest, name) for name in ("lower", "nominal", "upper"))
    voltage = model.predict(rows, nominal)
    answers = (voltage, model.predict(rows, low), model.predict(rows, high))
    if not all(np.isfinite(answer).all() for answer in answers):
        return "it predicts what is no number inside its own ranges"
    inside = (voltage >= manifest.target.minimum) & (voltage <= manifest.target.maximum)
    if not inside[0] or inside.mean() < PLAUSIBLE_SHARE:
        return (
            f"it predicts {voltage[0]:.4g} V in the middle of its ranges, and "
            f"{inside.mean():.0%} of them inside the plausible voltages "
            f"{manifest.target.minimum:g} to {manifest.target.maximum:g}"
        )
    return None


def _rows(manifest: Manifest) -> FloatArray:
    """The middle, then rows that fill the ranges evenly: the same ones each time."""
    low = np.array([feature.minimum for feature in manifest.features])
    high = np.array([feature.maximum for feature in manifest.features])
    share = np.random.default_rng(0).random((ROWS, len(low)))
    share[0] = 0.5
    rows: FloatArray = low + share * (high - low)
    return rows


def _parameters(manifest: Manifest, which: str) -> FloatArray:
    return np.array([getattr(parameter, which) for parameter in manifest.parameters], dtype=float)
