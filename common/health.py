"""State of health: where the predicted voltage falls to the cut-off, relative to when new.

Pure. Must never report a number without its spread.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.cutoff import first_crossing
from common.estimate import Estimate
from common.manifest import Manifest
from common.model import VoltageModel
from common.sampling import SAMPLES, Interval, drawn_batteries, interval_of, thetas_of

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StateOfHealth:
    """Ratio to new (1 = as new), and the usable value of the swept feature in its unit."""

    ratio: Interval
    usable: Interval


def state_of_health(
    estimate: Estimate,
    model: VoltageModel,
    manifest: Manifest,
    rng: np.random.Generator,
    samples: int = SAMPLES,
) -> StateOfHealth | None:
    """Health at the estimate; None where the bundle lets none be read.

    The interval holds the uncertainty of the parameters (the process noise of an extrapolation is
    in the estimate's covariance) and the model's discrepancy: a voltage that is wrong by sigma_d
    near the cut-off moves the crossing by about sigma_d / |dV/dx|, here exactly, since each sample
    is swept with a discrepancy of its own. What a battery brings for one trip only is not its
    health. The new battery is the yardstick and has no spread.
    """
    health = manifest.health
    new = usable_when_new(model, manifest)
    if health is None or new is None:
        return None
    drawn = drawn_batteries(estimate, manifest, rng, samples)
    thetas = np.concatenate([estimate.theta[None], thetas_of(drawn, manifest)])
    offsets = np.concatenate([[0.0], drawn.discrepancy_v])
    usable = first_crossing(thetas, health, model, manifest, offsets)
    unit = swept_unit(manifest)
    return StateOfHealth(
        ratio=interval_of(usable[0] / new, usable[1:] / new, "1"),
        usable=interval_of(usable[0], usable[1:], unit or ""),
    )


def usable_when_new(model: VoltageModel, manifest: Manifest) -> float | None:
    """What the swept feature reaches at nominal parameters; None where health has no yardstick.

    That is without a health section, and where the new battery is empty at once or never.
    """
    health = manifest.health
    if health is None:
        return None
    nominal = np.array([[parameter.nominal for parameter in manifest.parameters]])
    new = float(first_crossing(nominal, health, model, manifest)[0])
    return new if np.isfinite(new) and new > max(health.start, 0.0) else None


def swept_unit(manifest: Manifest) -> str | None:
    """The unit of the swept feature; None without a health section."""
    health = manifest.health
    if health is None:
        return None
    return next(f.unit for f in manifest.features if f.name == health.swept_feature)
