"""Where along a sweep of one feature the predicted voltage first falls to the cut-off.

Pure. For thousands of parameter sets at once: a coarse grid brackets each crossing, regula falsi
refines all of them together. Must never take a crossing that lies outside the sweep for one at its
end: that is infinity here, and the caller says what it means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from common.manifest import Health, Manifest
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]
Margin = Callable[[FloatArray, npt.NDArray[np.intp]], FloatArray]

COARSE_POINTS: Final = 32
# For the few curves that may dip below the cut-off and rise again between two coarse points.
FINE_POINTS: Final = 600
MAX_STEPS: Final = 30
# The model's output is float32: about 0.2 µV at 3 V.
CLOSE_V: Final = 1e-6
CLOSE_SHARE: Final = 1e-7  # of the sweep


def usable_until_cutoff(
    thetas: FloatArray, sweep: Health, model: VoltageModel, manifest: Manifest
) -> FloatArray:
    """First value [T] of the swept feature at which each theta [T, P] predicts the cut-off.

    The sweep's stop where the cut-off is never reached.
    """
    reached: FloatArray = np.minimum(first_crossing(thetas, sweep, model, manifest), sweep.stop)
    return reached


def first_crossing(
    thetas: FloatArray,
    sweep: Health,
    model: VoltageModel,
    manifest: Manifest,
    offset_v: FloatArray | None = None,
) -> FloatArray:
    """As `usable_until_cutoff`, but infinite where the cut-off is not reached within the sweep.

    `offset_v` [T] is added to each prediction. A curve that turns twice between two neighbours of
    the coarse grid (1/31 of the sweep), far from its sampled minima, would be read too late.
    """
    offsets = np.zeros(len(thetas)) if offset_v is None else offset_v
    limits = manifest.cutoff_voltage_v - offsets
    found, may_hide = _crossings(thetas, limits, COARSE_POINTS, sweep, model, manifest)
    if may_hide.any():
        found[may_hide], _ = _crossings(
            thetas[may_hide], limits[may_hide], FINE_POINTS, sweep, model, manifest
        )
    return found


def _crossings(
    thetas: FloatArray,
    limits: FloatArray,
    points: int,
    sweep: Health,
    model: VoltageModel,
    manifest: Manifest,
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The crossings [T] that a grid of `points` sees, and which thetas [T] may hide one."""
    grid = np.linspace(sweep.start, sweep.stop, points)
    margins = model.predict_grid(_rows(grid, sweep, manifest), thetas) - limits[:, None]
    below = margins <= 0
    first = np.where(below.any(axis=1), below.argmax(axis=1), points)
    found = np.full(len(thetas), np.inf)
    found[first == 0] = sweep.start
    index = np.flatnonzero((first > 0) & (first < points))
    after = first[index]

    def margin(x: FloatArray, of: npt.NDArray[np.intp]) -> FloatArray:
        which = index[of]
        voltage = model.predict(_rows(x, sweep, manifest), thetas[which])
        return np.subtract(voltage, limits[which])

    ends = grid[after - 1], grid[after], margins[index, after - 1], margins[index, after]
    found[index] = _refined(*ends, margin, CLOSE_SHARE * (sweep.stop - sweep.start))
    return found, _may_hide(margins, first)


def _rows(swept: FloatArray, sweep: Health, manifest: Manifest) -> FloatArray:
    """Feature rows [m, F]: the swept feature as given, the others at their reference."""
    reference = [sweep.reference.get(name, 0.0) for name in manifest.feature_names]
    rows = np.tile(reference, (len(swept), 1))
    rows[:, manifest.feature_names.index(sweep.swept_feature)] = swept
    return rows


def _may_hide(margins: FloatArray, first: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Which curves [T] may touch zero unseen before their first visible crossing.

    Between samples a parabola reaches an eighth of its second difference below a sampled minimum;
    a minimum that stands less than the whole of it above zero is looked at closely. (The start may
    be one: mirrored there. The end is none: a curve that falls there falls on.)
    """
    padded = np.pad(margins, ((0, 0), (1, 0)), mode="reflect")
    left, here, right = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    is_minimum = (here <= left) & (here <= right)
    is_close = here <= left + right - 2 * here
    is_before = np.arange(here.shape[1]) < first[:, None]
    hides: npt.NDArray[np.bool_] = np.any(is_minimum & is_close & is_before, axis=1)
    return hides


def _refined(
    low: FloatArray,
    high: FloatArray,
    at_low: FloatArray,
    at_high: FloatArray,
    margin: Margin,
    close: float,
) -> FloatArray:
    """Roots [T] between low (margin positive) and high (not positive), all at once.

    Regula falsi in the Illinois form (M. Dowell, P. Jarratt, "A modified regula falsi method for
    computing the root of an equation", BIT 11, 1971): an end that stays twice counts half.
    """
    low, high, at_low, at_high = low.copy(), high.copy(), at_low.copy(), at_high.copy()
    root: FloatArray = high - at_high * (high - low) / (at_high - at_low)
    side = np.zeros(len(root))
    open_ = np.arange(len(root))
    for _ in range(MAX_STEPS):
        open_ = open_[high[open_] - low[open_] > close]
        if not open_.size:
            break
        root[open_] = high[open_] - at_high[open_] * (high[open_] - low[open_]) / (
            at_high[open_] - at_low[open_]
        )
        value = margin(root[open_], open_)
        up, down = open_[value > 0], open_[value <= 0]
        low[up], at_low[up] = root[up], value[value > 0]
        high[down], at_high[down] = root[down], value[value <= 0]
        at_high[up[side[up] > 0]] /= 2
        at_low[down[side[down] < 0]] /= 2
        side[up], side[down] = 1, -1
        open_ = open_[np.abs(value) > CLOSE_V]
    return root
