"""Made-up lives and trips for the tests of the benches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.offline_loop import Driven, Trip
from common.bundle import Bundle
from common.calibration import Estimate
from common.model import VoltageModel
from common.trace import TraceArrays


def life(
    error_v: Sequence[float],
    updated: Sequence[bool] | None = None,
    true: Sequence[float] | None = None,
    estimates: Sequence[Estimate] = (),
) -> Driven:
    """A life of which only what a test names matters."""
    nothing = np.full(len(error_v), np.nan)
    return Driven(
        np.array(error_v),
        nothing if true is None else np.array(true),
        np.zeros(len(error_v), dtype=bool) if updated is None else np.array(updated),
        list(estimates),
        nothing,
        nothing,
    )


def trip_at(
    bundle: Bundle,
    odometer: float,
    theta: Sequence[float] = (1.0, 0.0),
    points: int = 50,
    noise: np.random.Generator | None = None,
) -> Trip:
    """300 km with the voltage that theta gives; with the noise of a BMS where there is one."""
    features = np.column_stack([np.linspace(0.0, 300.0, points), np.full(points, 500.0)])
    true_v = VoltageModel(bundle).predict(features, list(theta))
    std_v = bundle.manifest.measurement_noise_std_v
    seen_v = true_v if noise is None else true_v + noise.normal(0.0, std_v, points)
    arrays = TraceArrays(np.arange(float(points)), features, seen_v)
    return Trip(f"at-{odometer:g}", odometer, arrays, arrays, true_v)


def breaching_trip(bundle: Bundle, odometer: float, gain: float, points: int = 50) -> Trip:
    """A noisy trip of a battery with that gain; the same odometer gives the same noise."""
    rng = np.random.default_rng(int(odometer))
    return trip_at(bundle, odometer, (gain, 0.0), points, rng)
