"""What is left until the cut-off from here on, under conditions that the caller names.

Pure. Must never take a condition for granted in silence: the answer says which ones it used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from common.cutoff import first_crossing
from common.errors import NoHealthError, QuestionError
from common.estimate import Estimate
from common.health import swept_unit
from common.manifest import Health, Manifest
from common.model import VoltageModel
from common.plausible import checked_value
from common.sampling import Interval, drawn_batteries, interval_of, thetas_of

FloatArray = npt.NDArray[np.float64]

KM_PER_UNIT: Final = {"km": 1.0, "m": 1e-3}


@dataclass(frozen=True)
class Remaining:
    """What the swept feature has left in its unit, and as a distance where that is known.

    `conditions` are the values of all features that it holds for; `beyond_share` is the share of
    the probability that the cut-off is not reached where the sweep ends, at `looked_at` further on.
    """

    swept: Interval
    distance_km: Interval | None
    conditions: dict[str, float]
    beyond_share: float
    looked_at: float


def remaining_until_cutoff(
    estimate: Estimate,
    conditions: Mapping[str, float],
    model: VoltageModel,
    manifest: Manifest,
    rng: np.random.Generator,
    consumption_per_km: float | None = None,
) -> Remaining:
    """What is left of the swept feature from its value in `conditions` on.

    `estimate` is a trip's (`align`, or `with_trip_spread` before it begins).
    Other features that `conditions` leave out stand at the health section's reference.
    `consumption_per_km`, in the swept unit, makes a distance of what is none.
    Raises QuestionError, NoHealthError.
    """
    sweep = _sweep_from(conditions, manifest)
    drawn = drawn_batteries(estimate, manifest, rng)
    thetas = np.concatenate([estimate.theta[None], thetas_of(drawn, manifest)])
    offsets = np.concatenate([[0.0], drawn.discrepancy_v])
    left = first_crossing(thetas, sweep, model, manifest, offsets) - sweep.start
    unit = swept_unit(manifest) or ""
    km = _km_per_unit(unit, consumption_per_km)
    return Remaining(
        swept=interval_of(left[0], left[1:], unit),
        distance_km=interval_of(left[0] * km, left[1:] * km, "km") if km else None,
        conditions={**sweep.reference, sweep.swept_feature: sweep.start},
        beyond_share=float(np.isinf(left[1:]).mean()),
        looked_at=sweep.stop - sweep.start,
    )


def _sweep_from(conditions: Mapping[str, float], manifest: Manifest) -> Health:
    health = manifest.health
    if health is None:
        raise NoHealthError("it declares no feature to sweep")
    features = {feature.name: feature for feature in manifest.features}
    for name, value in conditions.items():
        if name not in features:
            known = ", ".join(features)
            raise QuestionError(f"conditions.{name}"[:80], f"no such feature; known: {known}")
        checked_value(f"conditions.{name}", value, features[name])
    if health.swept_feature not in conditions:
        raise QuestionError(f"conditions.{health.swept_feature}", "needed: where it stands now")
    here = conditions[health.swept_feature]
    if here >= health.stop:
        problem = f"the model is swept up to {health.stop:g} only"
        raise QuestionError(f"conditions.{health.swept_feature}", problem)
    others = {name: conditions.get(name, value) for name, value in health.reference.items()}
    return msgspec.structs.replace(health, start=here, reference=others)


def _km_per_unit(unit: str, consumption_per_km: float | None) -> float | None:
    if consumption_per_km is None:
        return KM_PER_UNIT.get(unit)
    if not 0 < consumption_per_km < math.inf:
        raise QuestionError("consumption_per_km", "must be positive and finite")
    if unit in KM_PER_UNIT:
        raise QuestionError("consumption_per_km", f"the swept feature is a distance in {unit}")
    return 1 / consumption_per_km
