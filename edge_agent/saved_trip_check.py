"""Whether a saved trip fits the bundle and can be one at all, before anything is computed with it.

The checksum says that it is what was written, not who wrote it: another version may have. Pure.
"""

from __future__ import annotations

import numpy as np

from common.believable import disbelief
from common.calibration import is_inside_bounds, is_positive_definite
from common.manifest import Manifest
from edge_agent.samples import Sample, header_problem
from edge_agent.trip_state import Saved

MOST = 10**9  # samples of a trip, numbers of a revision


def misfit(saved: Saved, manifest: Manifest) -> str | None:
    """What does not fit, None where everything does."""
    if not _has_the_lengths(saved, manifest):
        return "it has other parameters or features than the bundle"
    counts = (saved.revision, saved.samples, saved.refused)
    if not all(0 <= count <= MOST for count in counts) or not saved.absolute_error >= 0:
        return "it counts what cannot be counted"
    return _what_of_its_samples(saved, manifest) or _what_of_its_parameters(saved, manifest)


def _has_the_lengths(saved: Saved, manifest: Manifest) -> bool:
    features, parameters = len(manifest.features), len(manifest.parameters)
    lengths = {len(saved.theta), len(saved.rate), len(saved.growth or saved.theta)}
    sizes = (len(saved.covariance), len(saved.feature_sums), len(saved.last))
    return lengths == {parameters} and sizes == ((2 * parameters) ** 2, features, features + 2)


def _what_of_its_samples(saved: Saved, manifest: Manifest) -> str | None:
    for time_s, odometer in (
        (saved.started_at, saved.odometer_start),
        (saved.last_time_s, saved.odometer),
    ):
        problem = header_problem(Sample(time_s, odometer, {}, 0.0, saved.trip_id))
        if problem is not None:
            return problem
    rows = np.vstack([saved.table(), saved.last])
    measured = [*manifest.features, manifest.target]
    low, high = (np.array([getattr(m, end) for m in measured]) for end in ("minimum", "maximum"))
    if not np.all((rows[:, 1:] >= low) & (rows[:, 1:] <= high)):
        return "it holds a sample that is not plausible"
    steps_s = np.diff(rows[:, 0])
    if saved.odometer < saved.odometer_start or not np.all(steps_s[:-1] > 0) or steps_s[-1:] < 0:
        return "it runs backwards"
    return None


def _what_of_its_parameters(saved: Saved, manifest: Manifest) -> str | None:
    estimate = saved.estimate()
    if not (is_inside_bounds(estimate, manifest) and is_positive_definite(estimate, manifest)):
        return "its parameters are none"
    return disbelief(estimate, manifest)
