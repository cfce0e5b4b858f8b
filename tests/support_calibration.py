"""What the tests of the calibration share: a model that is linear in float64, and its batteries.

The graph of a real bundle computes in float32: too coarse to compare equations by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import msgspec
import numpy as np
import numpy.typing as npt

from common import calibration
from common.calibration import Estimate, Settings
from common.discrepancy import correlation
from common.layout import layout_of
from common.manifest import Manifest, Parameter
from common.model import VoltageModel
from common.trace import TraceArrays
from tests.support_edge import manifest_of

FloatArray = npt.NDArray[np.float64]

PLAIN = Settings(huber=1e9)
NOISE_V = 0.01
# Bounds far away: a free number inside is the parameter itself.
WIDE = (
    Parameter("gain", "1", 1.0, 0.05, -10.0, 12.0, 1e-7, 1e-6, 1e-15),
    Parameter("offset", "V", 0.0, 0.05, -10.0, 10.0, 1e-8),
)


class _Linear:
    """V = 4 - 0.002 x0 + (gain - 1) sin(x0 / 60) + offset, of features (x0, x1)."""

    def predict(self, features: npt.ArrayLike, parameters: npt.ArrayLike) -> FloatArray:
        x, theta = np.atleast_2d(features), np.atleast_2d(parameters)
        return np.asarray(base(x) + (slopes(x) * (theta - [1.0, 0.0])).sum(axis=1))

    def predict_crossed(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
        moved = (parameters - [1.0, 0.0]) @ slopes(features).swapaxes(-1, -2)
        return np.asarray(base(features)[:, None] + moved)

    def predict_one(self, features: Sequence[float], parameters: FloatArray) -> float:
        return float(self.predict(features, parameters)[0])


EXACT = cast("VoltageModel", _Linear())


def base(features: FloatArray) -> FloatArray:
    return np.asarray(4.0 - 0.002 * features[..., 0])


def slopes(features: FloatArray) -> FloatArray:
    """dV/dtheta [..., m, 2], the same at every theta."""
    sine = np.sin(features[..., 0] / 60.0)
    return np.stack([sine, np.ones_like(sine)], axis=-1)


def wide_manifest(
    trip_std: tuple[float, float] = (0.0, 0.0),
    point_std: tuple[float, float] = (0.0, 0.0),
    **changes: float,
) -> Manifest:
    parameters = [
        msgspec.structs.replace(p, trip_std=trip, point_std=point)
        for p, trip, point in zip(WIDE, trip_std, point_std, strict=True)
    ]
    return manifest_of(b"", parameters, **changes)


def rows(points: int) -> FloatArray:
    """Features [points, 2] of a trip of 300 km."""
    return np.column_stack([np.linspace(0.0, 300.0, points), np.full(points, 500.0)])


def surprise_covariance(manifest: Manifest, points: int) -> FloatArray:
    """R of a trace [points, points]: noise, discrepancy along the trip, spread at each point."""
    noise, d = manifest.measurement_noise_std_v, manifest.model_discrepancy_std_v
    along = correlation(points, manifest.discrepancy_correlation)
    axes = np.eye(points) if along.axes is None else along.axes
    R = noise**2 * np.eye(points) + d**2 * (axes * along.variances) @ axes.T
    own = slopes(rows(points)) ** 2 @ [p.point_std**2 for p in manifest.parameters]
    # A point that tells less is scaled as a whole, so that R keeps its correlation.
    scale = np.sqrt(1.0 + own / (noise**2 + d**2))
    return np.asarray(R * np.outer(scale, scale))


def measured(
    manifest: Manifest, theta: FloatArray, rng: np.random.Generator, points: int = 40
) -> TraceArrays:
    """A trip of a battery at theta as the manifest says that trips are: own shift, own errors."""
    trip = theta + rng.normal(size=2) * [p.trip_std for p in manifest.parameters]
    root = np.linalg.cholesky(surprise_covariance(manifest, points))
    voltage_v = EXACT.predict(rows(points), trip) + root @ rng.normal(size=points)
    return TraceArrays(np.arange(float(points)), rows(points), voltage_v)


def drawn(estimate: Estimate, manifest: Manifest, rng: np.random.Generator) -> FloatArray:
    """A battery that the estimate speaks of: its active states (gain, offset, rate of the gain)."""
    active = layout_of(manifest).active
    mean = np.concatenate([estimate.theta, estimate.rate])[active]
    root = np.linalg.cholesky(estimate.covariance[np.ix_(active, active)])
    return np.asarray(mean + root @ rng.normal(size=len(active)))


def at(estimate: Estimate, *theta: float) -> Estimate:
    return replace(estimate, theta=np.array(theta))


def assert_sound(estimate: Estimate, manifest: Manifest) -> None:
    """Finite, inside the bounds, and a covariance that is one."""
    assert np.isfinite(estimate.theta).all()
    assert calibration.is_inside_bounds(estimate, manifest)
    np.testing.assert_array_equal(estimate.covariance, estimate.covariance.T)
    assert calibration.is_positive_definite(estimate, manifest)
