"""What could become a calibratable parameter of a network, with its prior.

Pure. Must never decide which candidates are chosen.

| name | meaning | nominal, prior standard deviation, bounds |
| --- | --- | --- |
| `gain:<feature>` | x' = gain · x, raw units | 1, 0.1, [0.2, 5] |
| `gain:<f1>+<f2>` | one gain on several features (a current and its moving average) | as above |
| `response:<f1>+…` | gain on what these features do to v: v' = v₀ + gain · (v − v₀) | as above |
| `offset:<feature>` | x' = … + offset, raw units | 0, 5 % of its range, ± its range |
| `gain:output` | v' = gain · v | 1, 0.1, [0.2, 5] |
| `offset:output` | v' = … + offset, volts | 0, 5 % of the voltage's range, ± that range |
| `weight:h<j>` | factor on the last layer's weight of hidden unit j (from 0) | 1, 0.1, [0.2, 5] |
| `bias:output` | on the last layer's bias, volts: v' = gain · (v + bias) + … | as the offset |

v₀ is the network's voltage with these inputs (with their gains and offsets) at zero. A response is
a candidate only where it is named: a resistance that grows, while the inputs stay where the network
was trained. A gain on the inputs of a tanh network saturates beyond its training.

With the output's gain at its nominal value `bias:output` is `offset:output` under another name: the
selection, which takes what a trip can tell apart, never takes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import msgspec

from cloud.training.errors import OptionError, UnknownCandidateError
from cloud.training.network import FloatArray
from common.manifest import Feature, Parameter
from common.manifest import Target as VoltageTarget

GAIN_PRIOR_STD: Final = 0.1
GAIN_BOUNDS: Final = (0.2, 5.0)
OFFSET_PRIOR_SHARE: Final = 0.05
OUTPUT: Final = "output"
INPUT: Final = "gain:"
RESPONSE: Final = "response:"


class Kind(Enum):
    """Where in the graph a parameter acts."""

    INPUT_GAIN = "gain"
    INPUT_OFFSET = "offset"
    RESPONSE = "response"
    LAST_WEIGHT = "weight"
    LAST_BIAS = "bias"
    OUTPUT_GAIN = "output gain"
    OUTPUT_OFFSET = "output offset"


@dataclass(frozen=True)
class Target:
    """What one parameter acts on: inputs or hidden units by number; (0,) for the output."""

    kind: Kind
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Candidate:
    """A possible parameter: where it acts, and what the manifest would say of it."""

    target: Target
    parameter: Parameter

    @property
    def name(self) -> str:
        """Its name in the manifest."""
        return self.parameter.name


@dataclass(frozen=True)
class Overrides:
    """Values by candidate name that replace the defaults of the table above."""

    prior_std: Mapping[str, float] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    process_noise: Mapping[str, float] = field(default_factory=dict)
    rate_prior_std: Mapping[str, float] = field(default_factory=dict)
    rate_process_noise: Mapping[str, float] = field(default_factory=dict)
    rate_volatility: Mapping[str, float] = field(default_factory=dict)
    rate_growth: Mapping[str, float] = field(default_factory=dict)
    trip_std: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """All candidates that some value is for."""
        return {name for values in vars(self).values() for name in values}

    def updated(self, other: Overrides) -> Overrides:
        """These, with the values of `other` where it has some."""
        return Overrides(**{key: {**vars(self)[key], **vars(other)[key]} for key in vars(self)})

    def as_json(self) -> dict[str, dict[str, Any]]:
        """A form that a JSON file can keep."""
        return {key: dict(values) for key, values in vars(self).items()}

    @classmethod
    def from_json(cls, kept: Mapping[str, Mapping[str, Any]]) -> Overrides:
        """The reverse of `as_json`; JSON knows no tuples."""
        bounds = {name: (low, high) for name, (low, high) in kept["bounds"].items()}
        # Records of older versions lack the newer kinds; those of newer ones may have more.
        known = {key: kept[key] for key in vars(cls()) if key in kept}
        return cls(**{**known, "bounds": bounds})


@dataclass(frozen=True, eq=False)
class Ranges:
    """Observed minimum and maximum, of the features [F, 2] and of the voltage [2]."""

    features: FloatArray
    target: FloatArray


def list_candidates(
    features: Sequence[Feature],
    target: VoltageTarget,
    hidden_units: int,
    ranges: Ranges,
    overrides: Overrides,
    extra: Sequence[str] = (),
) -> list[Candidate]:
    """All candidates, the groups of a signal with its moving averages, and what `extra` names.

    Raises UnknownCandidateError for a name in `extra` or in `overrides` that is none.
    """
    names = [feature.name for feature in features]
    named = (*extra, *sorted(overrides.names))
    responses = dict.fromkeys(name for name in named if name.startswith(RESPONSE))
    groups = [*_natural_groups(features), *(name for name in named if "+" in name)]
    groups = [name for name in dict.fromkeys(groups) if name not in responses]
    found = [
        *(_gain(f"gain:{name}", Kind.INPUT_GAIN, (i,)) for i, name in enumerate(names)),
        *(_gain(name, Kind.INPUT_GAIN, _members(name, names, INPUT)) for name in groups),
        *(_gain(name, Kind.RESPONSE, _members(name, names, RESPONSE)) for name in responses),
        *(_input_offset(i, feature, ranges) for i, feature in enumerate(features)),
        _gain(f"gain:{OUTPUT}", Kind.OUTPUT_GAIN, (0,)),
        _offset(OUTPUT, target.unit, Kind.OUTPUT_OFFSET, 0, ranges.target),
        *(_gain(f"weight:h{j}", Kind.LAST_WEIGHT, (j,)) for j in range(hidden_units)),
        _offset(OUTPUT, target.unit, Kind.LAST_BIAS, 0, ranges.target),
    ]
    known = tuple(candidate.name for candidate in found)
    for name in named:
        if name not in known:
            raise UnknownCandidateError(name, known)
    return [_overridden(candidate, overrides) for candidate in found]


def _natural_groups(features: Sequence[Feature]) -> list[str]:
    """A signal and its moving averages share a sensor and a resistance: one gain for all."""
    families: dict[str, list[str]] = {}
    for feature in features:
        average = feature.moving_average
        families.setdefault(average.signal if average else feature.name, []).append(feature.name)
    return ["gain:" + "+".join(family) for family in families.values() if len(family) > 1]


def _members(name: str, features: Sequence[str], prefix: str) -> tuple[int, ...]:
    members = name.removeprefix(prefix).split("+")
    if not name.startswith(prefix) or len(set(members)) != len(members):
        raise UnknownCandidateError(name, tuple(f"{prefix}{feature}" for feature in features))
    for member in members:
        if member not in features:
            raise UnknownCandidateError(name, tuple(f"{prefix}{feature}" for feature in features))
    return tuple(features.index(member) for member in members)


def _gain(name: str, kind: Kind, indices: tuple[int, ...]) -> Candidate:
    lower, upper = GAIN_BOUNDS
    parameter = Parameter(
        name=name, unit="1", nominal=1.0, prior_std=GAIN_PRIOR_STD, lower=lower, upper=upper
    )
    return Candidate(Target(kind, indices), parameter)


def _input_offset(index: int, feature: Feature, ranges: Ranges) -> Candidate:
    return _offset(feature.name, feature.unit, Kind.INPUT_OFFSET, index, ranges.features[index])


def _offset(name: str, unit: str, kind: Kind, index: int, observed: FloatArray) -> Candidate:
    # A feature that was constant in training has no range: its own size stands in.
    width = float(observed[1] - observed[0]) or abs(float(observed[1])) or 1.0
    parameter = Parameter(
        name=f"{'bias' if kind is Kind.LAST_BIAS else 'offset'}:{name}",
        unit=unit,
        nominal=0.0,
        prior_std=OFFSET_PRIOR_SHARE * width,
        lower=-width,
        upper=width,
    )
    return Candidate(Target(kind, (index,)), parameter)


def _overridden(candidate: Candidate, overrides: Overrides) -> Candidate:
    name = candidate.name
    changes: dict[str, Any] = {
        key: values[name]
        for key, values in vars(overrides).items()
        if key != "bounds" and name in values
    }
    if name in overrides.bounds:
        changes["lower"], changes["upper"] = overrides.bounds[name]
    parameter = msgspec.structs.replace(candidate.parameter, **changes)
    _check(parameter)
    return Candidate(candidate.target, parameter)


def _check(parameter: Parameter) -> None:
    if not parameter.lower < parameter.nominal < parameter.upper:
        problem = f"{parameter.lower:g}:{parameter.upper:g} does not enclose {parameter.nominal:g}"
        raise OptionError(f"bounds of {parameter.name}", problem, "Give lower:upper around it.")
    if parameter.prior_std <= 0:
        raise OptionError(f"prior of {parameter.name}", "it is not positive", "Give a number > 0.")
    noises = (
        parameter.process_noise,
        parameter.rate_prior_std,
        parameter.rate_process_noise,
        parameter.rate_volatility,
        parameter.rate_growth,
        parameter.trip_std,
    )
    if min(noises) < 0:
        problem = "a variance, a standard deviation or a growth is negative"
        raise OptionError(f"noise of {parameter.name}", problem, "Give numbers of 0 or more.")
