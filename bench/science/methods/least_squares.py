"""Recursive least squares with a forgetting factor, on the model linearised where it stands.

L. Ljung, "System Identification: Theory for the User", 2nd ed., 1999, section 11.2: with
z = H x + v, one block of a trace is
    K = P H' (lambda R + H P H')^-1,  x += K (z - H x),  P = (P - K H P) / lambda,
solved here in its information form. The slopes H are central differences through the same .tflite;
`passes` linearises again around the result (Gauss-Newton). Forgetting takes the place of process
noise. Pure but for the model call. Must never judge a result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bench.offline_loop import Breach, Method, Update
from bench.science.methods.common_ground import (
    active_of,
    is_accepted,
    jacobian,
    packed,
    unpacked,
    whitening,
    without_noise,
)
from common.calibration import Estimate, extrapolate
from common.manifest import Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]
Linearised = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def recursive_least_squares(
    model: VoltageModel, manifest: Manifest, forgetting: float, passes: int
) -> Method[Estimate]:
    """The method as the loop takes it; its states are those that the manifest declares."""
    plain = without_noise(manifest)
    active, count = active_of(plain), len(plain.parameters)

    def one(breach: Breach[Estimate]) -> Update[Estimate] | None:
        there = extrapolate(breach.state, plain, breach.odometer)
        x, P = packed(there, active)
        W = whitening(len(breach.trace.time_s), plain)

        def h(state: FloatArray) -> tuple[FloatArray, FloatArray]:
            voltage, slopes = jacobian(state[:count], breach.trace.features, model, plain)
            return W @ voltage, W @ np.pad(slopes, ((0, 0), (0, len(active) - count)))

        x, P = block_update(x, P, W @ breach.trace.voltage_v, h, 1.0, forgetting, passes)
        found = unpacked(x, P, active, count, breach.odometer)
        accepted = is_accepted(found, breach.state, breach.trace, model, plain)
        return Update(found) if accepted else None

    def update(breaches: Sequence[Breach[Estimate]]) -> list[Update[Estimate] | None]:
        return [one(breach) for breach in breaches]

    return Method("recursive least squares", plain, lambda e: e, lambda e: e, update)


def block_update(
    x: FloatArray,
    P: FloatArray,
    z: FloatArray,
    h: Linearised,
    r: float,
    forgetting: float,
    passes: int,
) -> tuple[FloatArray, FloatArray]:
    """State [n] and P [n, n] after a block z [m] of variance r; h gives (image, slopes [m, n])."""
    information = forgetting * np.linalg.inv(P)
    at = x
    for _ in range(passes):
        image, H = h(at)
        posterior = np.linalg.inv(information + H.T @ H / r)
        at = x + posterior @ H.T @ (z - image - H @ (x - at)) / r
    return at, posterior
