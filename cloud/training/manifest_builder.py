"""Derive a manifest from a training table: plausible ranges, units, health, provenance.

Pure. Must never hold anything particular to one data set: names and numbers come from the table and
from the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib import metadata
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cloud.training.candidates import OUTPUT, Ranges, list_candidates
from cloud.training.errors import OptionError
from cloud.training.fit import Errors, Fit
from cloud.training.settings import TrainingSettings
from cloud.training.table import TripTable
from common.manifest import MANIFEST_SCHEMA, Feature, Health, Manifest, Target

FloatArray = npt.NDArray[np.float64]

SWEEP_BEYOND: Final = 1.5  # how far beyond the longest training trip health is looked for
TARGET_HEADROOM: Final = 1.3
DISCREPANCY_FLOOR: Final = 0.1  # of the measurement noise: no model is perfect
LIBRARIES: Final = ("numpy", "scikit-learn", "scipy", "flatbuffers")
# By the end of a name, longest first: "speed_m_s" is no time in seconds.
UNITS: Final = {
    "_percent": "%",
    "_m_s": "m/s",
    "_kmh": "km/h",
    "_km": "km",
    "_kg": "kg",
    "_ah": "Ah",
    "_wh": "Wh",
    "_kw": "kW",
    "_nm": "N m",
    "_c": "°C",
    "_k": "K",
    "_a": "A",
    "_v": "V",
    "_s": "s",
    "_m": "m",
}


@dataclass(frozen=True)
class Declared:
    """What a manifest says without knowing the network."""

    features: list[Feature]
    target: Target
    health: Health | None
    ranges: Ranges


def declare(settings: TrainingSettings, table: TripTable) -> Declared:
    """Everything that can be said, and refused, before the training. Raises OptionError."""
    target = table.target
    declared = Declared(
        features=build_features(settings, table),
        target=build_target(settings, table),
        health=build_health(settings, table),
        ranges=Ranges(
            features=np.stack([table.features.min(axis=0), table.features.max(axis=0)], axis=1),
            target=np.array([target.min(), target.max()]),
        ),
    )
    names, overrides = settings.choice.names, settings.overrides
    units = settings.hidden[-1]
    list_candidates(declared.features, declared.target, units, declared.ranges, overrides, names)
    return declared


def build_features(settings: TrainingSettings, table: TripTable) -> list[Feature]:
    """The features in graph order with units and plausible ranges. Raises OptionError."""
    columns = settings.columns
    _require_distinct(settings, columns.features)
    _require_known(settings, columns.features)
    features = []
    for name, values in zip(columns.features, table.features.T, strict=True):
        average = columns.moving_averages.get(name)
        minimum, maximum = settings.ranges.get(name) or _widened(values)
        unit = settings.units.get(name) or _unit(average.signal if average else name)
        features.append(Feature(name, unit, minimum, maximum, average))
    return features


def build_target(settings: TrainingSettings, table: TripTable) -> Target:
    """Plausible voltages: from 0 (an aged battery is plausible) to well above the highest."""
    low, high = float(table.target.min()), float(table.target.max())
    minimum = 0.0 if low >= 0 else low - (high - low)
    maximum = TARGET_HEADROOM * high if high > 0 else high + (high - low)
    minimum, maximum = settings.ranges.get(settings.target) or (minimum, maximum)
    return Target(settings.target, settings.units.get(settings.target, "V"), minimum, maximum)


def build_manifest(
    settings: TrainingSettings, table: TripTable, fit: Fit, declared: Declared, today: date
) -> Manifest:
    """Everything but model, parameters and sensitivity, which are not known yet."""
    noise = settings.noise_std_v
    beyond_noise = max(fit.unmended_v**2 - noise**2, 0.0) ** 0.5
    cutoff = settings.cutoff_voltage_v
    return Manifest(
        schema=MANIFEST_SCHEMA,
        name=settings.name,
        model_sha256="0" * 64,
        features=declared.features,
        target=declared.target,
        parameters=[],
        measurement_noise_std_v=noise,
        model_discrepancy_std_v=round(max(beyond_noise, DISCREPANCY_FLOOR * noise), 6),
        cutoff_voltage_v=float(table.target.min()) if cutoff is None else cutoff,
        error_threshold_v=settings.error_threshold_v,
        odometer_unit=settings.odometer_unit,
        health=declared.health,
        provenance=_provenance(settings, table, fit, today),
    )


def build_health(settings: TrainingSettings, table: TripTable) -> Health | None:
    """Sweep the feature that grows through every trip; None when there is not exactly one."""
    names = settings.columns.features
    swept = settings.health_sweep or _only_growing(settings, table)
    if swept is None:
        return None
    _require_name("health-sweep", swept, names)
    means = dict(zip(names, table.features.mean(axis=0).tolist(), strict=True))
    reference = {**means, **settings.reference}
    del reference[swept]
    longest = float(table.features[:, names.index(swept)].max())
    if longest <= 0:
        problem = f"{swept} never exceeds 0, but health is looked for from 0 upwards"
        raise OptionError("health-sweep", problem, "Sweep a feature that grows from 0.")
    return Health(swept_feature=swept, start=0.0, stop=SWEEP_BEYOND * longest, reference=reference)


def _only_growing(settings: TrainingSettings, table: TripTable) -> str | None:
    same_trip = np.diff(table.trip) == 0
    steps = np.diff(table.features, axis=0)[same_trip]
    if not len(steps):
        return None
    grows = (steps >= 0).all(axis=0) & (steps > 0).any(axis=0) & (table.features.max(axis=0) > 0)
    names = [name for name, yes in zip(settings.columns.features, grows, strict=True) if yes]
    return names[0] if len(names) == 1 else None


def _widened(values: FloatArray) -> tuple[float, float]:
    """The observed range, widened to each side by its width or by the largest value if more."""
    low, high = float(values.min()), float(values.max())
    margin = max(high - low, abs(low), abs(high)) or 1.0
    return low - margin, high + margin


def _unit(name: str) -> str:
    endings = sorted(UNITS, key=len, reverse=True)
    return next((UNITS[ending] for ending in endings if name.endswith(ending)), "")


def _require_distinct(settings: TrainingSettings, features: tuple[str, ...]) -> None:
    """Names of candidates are made of names of features: those must not be ambiguous."""
    for name in features:
        if name in {OUTPUT, settings.target} or "+" in name:
            problem = f"{name!r} is the target, the word {OUTPUT!r}, or holds a '+'"
            raise OptionError("features", problem, "Rename or leave out that column.")


def _require_known(settings: TrainingSettings, features: tuple[str, ...]) -> None:
    """A misspelt name in an option must not pass in silence."""
    known = (*features, settings.target)
    options: dict[str, Mapping[str, object]] = {
        "unit": settings.units,
        "range": settings.ranges,
        "reference": settings.reference,
    }
    for option, values in options.items():
        for name in values:
            _require_name(option, name, features if option == "reference" else known)


def _require_name(option: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        remedy = f"Use {', '.join(known)}."
        raise OptionError(option, f"{name!r} is no column of this model", remedy)


def _provenance(
    settings: TrainingSettings, table: TripTable, fit: Fit, today: date
) -> dict[str, Any]:
    return {
        "table": table.name,
        "table_sha256": table.sha256,
        "rows": len(table.target),
        "vehicles": table.vehicles,
        "trips": table.trips,
        "held_out_trips": fit.held_out_trips,
        "trained_on": today.isoformat(),
        "seed": settings.seed,
        "hidden_layers": list(settings.hidden),
        "train": _rounded(fit.train),
        "held_out": _rounded(fit.held_out),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
    }


def _rounded(errors: Errors) -> dict[str, float]:
    return {"rmse_v": round(errors.rmse_v, 6), "mae_v": round(errors.mae_v, 6)}
