"""Whether a saved trip fits the bundle and can be one at all, before anything is computed with it.

The checksum says that it is what was written, not who wrote it: another version may have. Pure.
"""

from __future__ import annotations

import numpy as np

from common.believable import unfit
from common.manifest import Manifest
from edge_agent.samples import Sample, header_problem
from edge_agent.trips.trip_record import BUCKETS, ERROR, NUMBER, TIME, VALUES, Buckets
from edge_agent.trips.trip_state import Saved

MOST = 10**9  # samples of a trip, numbers of a revision


def misfit(saved: Saved, manifest: Manifest) -> str | None:
    """What does not fit, None where everything does."""
    if not _has_the_lengths(saved, manifest):
        return "it has other parameters or features than the bundle"
    counts = (saved.revision, saved.samples, saved.refused)
    if not all(0 <= count <= MOST for count in counts) or not 0 <= saved.covered <= saved.samples:
        return "it counts what cannot be counted"
    if not (saved.absolute_error >= 0 and saved.band_sum >= 0):
        return "it counts what cannot be counted"
    return _what_of_its_samples(saved, manifest) or unfit(saved.estimate(), manifest)


def _has_the_lengths(saved: Saved, manifest: Manifest) -> bool:
    features, parameters = len(manifest.features), len(manifest.parameters)
    lengths = {len(saved.theta), len(saved.rate), len(saved.growth or saved.theta)}
    sizes = (len(saved.covariance), len(saved.feature_sums), len(saved.last))
    return lengths == {parameters} and sizes == ((2 * parameters) ** 2, features, features + 4)


def _what_of_its_samples(saved: Saved, manifest: Manifest) -> str | None:
    for time_s, odometer in (
        (saved.started_at, saved.odometer_start),
        (saved.last_time_s, saved.odometer),
    ):
        problem = header_problem(Sample(time_s, odometer, {}, 0.0, saved.trip_id))
        if problem is not None:
            return problem
    buckets, last = Buckets.of_table(saved.table()), np.array([saved.last])
    if not 1 <= len(buckets) <= BUCKETS or saved.last[NUMBER] != saved.samples - 1:
        return "it counts what cannot be counted"
    measured = [*manifest.features, manifest.target]
    low, high = (np.array([getattr(m, end) for m in measured]) for end in ("minimum", "maximum"))
    rows = np.vstack([buckets.first, buckets.worst, last])
    values = np.vstack([rows[:, VALUES], buckets.low, buckets.high])
    if not np.all((values >= low) & (values <= high)) or not np.all(rows[:, ERROR] >= 0):
        return "it holds a sample that is not plausible"
    order = np.vstack([buckets.first, last])[:, NUMBER : TIME + 1]
    steps = np.diff(order, axis=0)
    if saved.odometer < saved.odometer_start or not np.all(steps[:-1] > 0) or np.any(steps < 0):
        return "it runs backwards"
    return None
