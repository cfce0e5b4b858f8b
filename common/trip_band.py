"""The 95 % band of one running trip, sample by sample: predicted voltage and standard deviation.

What `calibration.voltage_band` says of many rows at once, for one row at a time and in
microseconds: the sigma points of a trip stay the same from its first sample to its last, so their
images' variance is one quadratic form. Pure but for the model call. Must never say another band
than `voltage_band`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from common import ukf
from common.bundle_filter import BundleFilter
from common.discrepancy import point_variance
from common.estimate import Estimate, discrepancy_of, pack
from common.filter_values import Settings
from common.manifest import Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

Z95: Final = 1.959963984540054


class TripBand:
    """The band of one trip, whose parameters (`align`ed) are `estimate`."""

    def __init__(
        self, estimate: Estimate, model: VoltageModel, manifest: Manifest, settings: Settings
    ) -> None:
        """Raises CalibrationError when the covariance is not positive definite."""
        filter_ = BundleFilter(model, manifest, settings)
        sigmas = filter_.theta_sigmas(*pack([estimate], manifest))[0]
        fan = [estimate.theta[None], filter_.layout.bounds.bounded(sigmas)]
        self._model, self._fan = model, np.concatenate(fan)
        self._form = _variance_form(sigmas, filter_.theta_weights, filter_.layout.point_variances)
        noise_v = manifest.measurement_noise_std_v
        self._own = float(point_variance(noise_v, discrepancy_of(estimate, manifest).std_v))

    def at(self, row: Sequence[float]) -> tuple[float, float]:
        """Predicted voltage at a feature row [F], and the standard deviation of what is measured.

        Volts, both.
        """
        images = self._model.predict_fan(row, self._fan)
        centre = images[0]
        moved = images[1:] - centre
        spread = float(moved @ self._form @ moved)
        return float(centre), math.sqrt(max(spread, 0.0) + self._own)


def _variance_form(
    sigmas: FloatArray, weights: ukf.SigmaWeights, point_variances: FloatArray
) -> FloatArray:
    """M [k, k] with y' M y the variance of the voltage, y [k] the images of sigma points [k, P].

    The unscented variance sum w (y - y_mean)^2, and what the manifest's `point_std` adds by the
    slopes H of the statistical linear regression: sum point_std^2 H^2 (`ukf.linearise`).
    """
    k, count = sigmas.shape
    deviations = np.eye(k) - weights.mean
    half_differences = np.zeros((count, k))
    index = np.arange(count)
    half_differences[index, 1 + index] = 0.5
    half_differences[index, 1 + count + index] = -0.5
    slopes = np.linalg.solve(sigmas[1 : count + 1] - sigmas[0], half_differences)
    unscented = deviations.T * weights.covariance @ deviations
    form: FloatArray = unscented + slopes.T * point_variances @ slopes
    return form
