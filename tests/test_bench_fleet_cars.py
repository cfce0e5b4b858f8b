"""Thin cars: what they leave out is nothing of what their messages are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bench.fleet.thin_car import ahead
from common.calibration import extrapolate, prior
from common.manifest import Parameter
from tests.support_edge import manifest_of

MANIFEST = manifest_of(
    b"",
    [
        Parameter("gain", "1", 1.0, 0.05, 0.5, 1.5, 1e-7, 1e-6, 1e-15),
        Parameter("offset", "V", 0.0, 0.05, -0.1, 0.1, 1e-8, 1e-6, rate_growth=1e-5),
    ],
)


@given(
    theta=st.tuples(st.floats(0.5, 1.5), st.floats(-0.1, 0.1)),
    rate=st.tuples(st.floats(-1e-5, 1e-5), st.floats(-1e-5, 1e-5)),
    growth=st.none() | st.tuples(st.floats(0.0, 1e-3), st.floats(0.0, 1e-3)),
    km=st.floats(-10.0, 1e5),
)
def test_a_thin_car_predicts_with_an_agents_parameters(
    theta: tuple[float, float],
    rate: tuple[float, float],
    growth: tuple[float, float] | None,
    km: float,
) -> None:
    estimate = replace(
        prior(MANIFEST, odometer=100.0),
        theta=np.array(theta),
        rate=np.array(rate),
        growth=None if growth is None else np.array(growth),
    )
    thin, agent = (f(estimate, MANIFEST, 100.0 + km) for f in (ahead, extrapolate))
    assert thin.odometer == agent.odometer
    np.testing.assert_allclose(thin.theta, agent.theta, rtol=1e-12, atol=1e-15)
