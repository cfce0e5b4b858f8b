"""The canary: the revision on trial drives a trip, the confirmed one predicts beside it.

Both see the same samples, each aligned with the first one. Pure. Must never let
the confirmed one drive, nor judge a trip that was not seen whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from common import calibration
from common.calibration import Estimate
from common.manifest import Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

MARGIN: Final = 1.25
"""In error thresholds: `python -m bench.canary` says how often that is wrong, and what it lets by.

The next trip of a good revision may be worse by chance, since each trip brings something of its
own; one that is worse by more than a threshold was learned of a sensor that was off, or of another
battery.
"""
LEAST_SAMPLES: Final = 30


@dataclass(frozen=True)
class Beside:
    """A trip that revision `revision` drove on trial: mean absolute errors over the same samples.

    `before_v` is that of the confirmed parameters, `after_v` that of the trial, in volts.
    """

    revision: int
    before_v: float
    after_v: float


class Canary:
    """The confirmed parameters, followed along one trip."""

    def __init__(self, confirmed: Estimate, model: VoltageModel, manifest: Manifest) -> None:
        self._confirmed, self._model, self._manifest = confirmed, model, manifest
        self._absolute_error = 0.0
        self._samples = 0

    def begin(self, odometer: float, row: FloatArray, voltage_v: float) -> None:
        """Align with the trip's first sample, as the one that drives."""
        there = calibration.extrapolate(self._confirmed, self._manifest, odometer)
        self._confirmed = calibration.align(there, row, voltage_v, self._model, self._manifest)

    def add(self, row: Sequence[float], voltage_v: float) -> None:
        """One sample, the first one included."""
        beside = self._model.predict_one(row, self._confirmed.theta)
        self._absolute_error += abs(beside - voltage_v)
        self._samples += 1

    def result(self, revision: int, error_v: float) -> Beside | None:
        """None where too few samples were seen to say anything."""
        if self._samples < LEAST_SAMPLES:
            return None
        return Beside(revision, self._absolute_error / self._samples, error_v)


def is_worse(before_v: float, after_v: float, manifest: Manifest) -> bool:
    """Whether a trial must fall back to what was confirmed before it."""
    return after_v > before_v + MARGIN * manifest.error_threshold_v
