"""Estimates of many vehicles as arrays, in free numbers (common.bounds).

Whatever is computed for one vehicle is computed for many at once, by the same lines; a single
`Estimate` stands only at the border. Pure. Must never mix one vehicle's numbers with another's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from common.ageing import transition
from common.estimate import Discrepancy, Estimate, bounded_states, discrepancy_of, free_states
from common.layout import layout_of
from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp] | npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Batch:
    """Free numbers and rates x [B, 2P] at odometers [B], covariances P [B, 2P, 2P].

    No free number lies farther beyond the bounds than floats can tell (`Bounds.reachable`).
    growth [B, P] of the rates; each vehicle's own discrepancy [B] in volts, and the trips [B] that
    it rests on.
    """

    x: FloatArray
    P: FloatArray
    odometer: FloatArray
    growth: FloatArray
    discrepancy_v: FloatArray
    discrepancy_trips: FloatArray

    def take(self, index: Index) -> Batch:
        """Those of these vehicles."""
        return Batch(
            self.x[index],
            self.P[index],
            self.odometer[index],
            self.growth[index],
            self.discrepancy_v[index],
            self.discrepancy_trips[index],
        )

    def followed_by(self, other: Batch) -> Batch:
        """These vehicles, and then the others."""
        return Batch(
            np.concatenate([self.x, other.x]),
            np.concatenate([self.P, other.P]),
            np.concatenate([self.odometer, other.odometer]),
            np.concatenate([self.growth, other.growth]),
            np.concatenate([self.discrepancy_v, other.discrepancy_v]),
            np.concatenate([self.discrepancy_trips, other.discrepancy_trips]),
        )

    def replaced(self, index: Index, other: Batch) -> Batch:
        """With the states of `other` for these vehicles."""
        x, P = self.x.copy(), self.P.copy()
        x[index], P[index] = other.x, other.P
        return replace(self, x=x, P=P)


def batch_of(estimates: Sequence[Estimate], manifest: Manifest) -> Batch:
    """The estimates as arrays."""
    x, P = free_states(estimates, manifest)
    declared = layout_of(manifest).law.growth
    own = [discrepancy_of(e, manifest) for e in estimates]
    return Batch(
        x=x,
        P=P,
        odometer=np.array([e.odometer for e in estimates]),
        growth=np.array([declared if e.growth is None else e.growth for e in estimates]),
        discrepancy_v=np.array([d.std_v for d in own]),
        discrepancy_trips=np.array([d.trips for d in own]),
    )


def with_active(batch: Batch, x: FloatArray, P: FloatArray, manifest: Manifest) -> Batch:
    """With active states [B, n] and covariances [B, n, n] that a filter found, held within reach.

    What the manifest leaves out of the state is zero.
    """
    layout = layout_of(manifest)
    count, active = layout.count, layout.active
    full_x, full_P = np.zeros_like(batch.x), np.zeros_like(batch.P)
    full_x[:, active] = x
    full_x[:, :count] = layout.bounds.reachable(full_x[:, :count])
    full_P[:, *layout.active_square] = P
    return replace(batch, x=full_x, P=full_P)


def estimates_of(batch: Batch, before: Sequence[Estimate], manifest: Manifest) -> list[Estimate]:
    """One estimate a vehicle; growth, and a discrepancy that learned nothing, are as `before`."""
    thetas, rates, covariances = bounded_states(batch.x, batch.P, manifest)
    odometers = batch.odometer.tolist()
    own = zip(batch.discrepancy_v.tolist(), batch.discrepancy_trips.tolist(), strict=True)
    return [
        Estimate(
            theta=thetas[i],
            rate=rates[i],
            covariance=covariances[i],
            odometer=odometers[i],
            growth=before[i].growth,
            discrepancy=Discrepancy(std_v, trips) if trips > 0 else before[i].discrepancy,
        )
        for i, (std_v, trips) in enumerate(own)
    ]


def extrapolated(batch: Batch, odometers: FloatArray, manifest: Manifest) -> Batch:
    """At later odometers [B]: x = F x, P = F P F' + Q (common.ageing).

    Where the odometer is an earlier one nothing changes: a battery does not grow younger. A
    parameter that drifts to its bound bends and stays inside.
    """
    later = odometers > batch.odometer
    if not later.any():
        return batch
    layout = layout_of(manifest)
    ds = np.where(later, odometers - batch.odometer, 1.0)
    law = replace(layout.law, growth=batch.growth)
    F, Q = transition(law, batch.x[:, layout.count :], ds)
    x = (F @ batch.x[..., None])[..., 0]
    x[:, : layout.count] = layout.bounds.reachable(x[:, : layout.count])
    P = F @ batch.P @ F.swapaxes(-1, -2) + Q
    return replace(
        batch,
        x=np.where(later[:, None], x, batch.x),
        P=np.where(later[:, None, None], P, batch.P),
        odometer=np.maximum(odometers, batch.odometer),
    )


def extrapolate(estimate: Estimate, manifest: Manifest, odometer: float) -> Estimate:
    """One estimate at a later odometer; an earlier one gives the estimate unchanged."""
    if not odometer > estimate.odometer:
        return estimate
    there = extrapolated(batch_of([estimate], manifest), np.array([odometer]), manifest)
    return estimates_of(there, [estimate], manifest)[0]


def with_trip_variances(batch: Batch, manifest: Manifest) -> Batch:
    """Of one trip's own parameters: what varies from trip to trip comes on top."""
    layout = layout_of(manifest)
    index = np.arange(layout.count)
    P = batch.P.copy()
    # What the manifest declares is of theta, and these are the covariances of free numbers.
    slope = layout.bounds.slope(batch.x[:, : layout.count])
    P[:, index, index] += layout.trip_variances / np.square(slope)
    return replace(batch, P=P)
