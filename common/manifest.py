"""What a bundle declares about its model: features, calibratable parameters, noise, limits, health.

Pure values. Must never assume any particular feature, unit or chemistry: whatever the vehicle and
the cloud know about a model stands here.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec

from common.errors import BundleError

MANIFEST_SCHEMA = 1

# Far beyond any unit, far below where squares and cubes overflow.
LARGEST = 1e15
Positive = Annotated[float, msgspec.Meta(gt=0, le=LARGEST)]
NonNegative = Annotated[float, msgspec.Meta(ge=0, le=LARGEST)]
# A gain on a current and several of its moving averages has a long name.
MAX_NAME = 128
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]


class MovingAverage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exponentially weighted moving average of another signal, computed on the vehicle.

    y += (1 - exp(-dt/tau)) * (x - y), started at the trip's first sample.
    """

    signal: Name
    time_constant_s: Positive


class Signal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity with its unit; a value outside [minimum, maximum] is implausible and refused."""

    name: Name
    unit: str
    minimum: float
    maximum: float


class Feature(Signal, frozen=True):
    """One input of the graph: a signal of the car, or a moving average of one."""

    moving_average: MovingAverage | None = None


class Target(Signal, frozen=True):
    """The measured quantity that the graph predicts, in volts of a cell or of a pack."""


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One calibratable input of the graph, with its prior.

    `rate_prior_std` is the prior standard deviation of its ageing rate per odometer unit; zero
    leaves the rate out of the state. `process_noise` and `rate_process_noise` are variance
    densities per odometer unit (random walk of the parameter, and of its rate); `rate_volatility`
    is the same for the rate in proportion to itself, a relative standard deviation per square root
    of the unit; `rate_growth` how fast the rate grows, per unit (common.ageing).

    `trip_std` is the standard deviation of what the parameter takes for one trip only (an
    incomplete charge, a cold morning), `point_std` of what it takes at one point only: where the
    voltage is steep, a small misfit of the model moves it much.
    """

    name: Name
    unit: str
    nominal: float
    prior_std: Positive
    lower: float
    upper: float
    process_noise: NonNegative = 0.0
    rate_prior_std: NonNegative = 0.0
    rate_process_noise: NonNegative = 0.0
    rate_volatility: NonNegative = 0.0
    rate_growth: NonNegative = 0.0
    trip_std: NonNegative = 0.0
    point_std: NonNegative = 0.0


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How state of health is read off the model.

    The swept feature grows from `start` to `stop` while the others stay at `reference`; where the
    predicted voltage falls to the cut-off, the battery is empty. State of health is that point
    relative to the same at the nominal parameters.
    """

    swept_feature: Name
    start: float
    stop: float
    reference: dict[str, float]


class SobolIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sobol indices of one input with the half widths of their 95 % confidence intervals."""

    name: str
    first: float
    first_ci: float
    total: float
    total_ci: float
    selected: bool = False
    reason: str = ""


class PairIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Second-order Sobol index of a pair of inputs."""

    first: str
    second: str
    index: float
    ci: float


class GroupIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sobol indices of inputs that vary together as one."""

    name: str
    members: list[str]
    first: float
    first_ci: float
    total: float
    total_ci: float


class Learnt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What so many trips teach of the selected parameters, in prior standard deviations.

    Posterior standard deviations and correlation, the eigenvalues of the Fisher information and
    their ratio (1e9 stands for infinite); `collinearity` is the condition number of the information
    with every parameter scaled to the same.
    """

    trips: int
    posterior_std: list[float]
    correlation: list[list[float]]
    eigenvalues: list[float]
    condition_number: float
    collinearity: float


class Identifiability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which parameters the data can tell apart.

    `pairwise` is the posterior correlation of each two of the `compared` candidates, when those two
    are estimated from one typical trip.
    """

    names: list[str]
    learnt: list[Learnt]
    weakest: str
    compared: list[str]
    pairwise: list[list[float]]


class Sensitivity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The evidence on which the parameters were selected.

    `pairs` holds only those of `pairs_tested` whose index is no noise; `explanation` says in words
    why the parameters were selected. What an older version did not compute is empty.
    """

    samples: int
    indices: list[SobolIndex]
    pairs: list[PairIndex] = []
    pairs_tested: int = 0
    groups: list[GroupIndex] = []
    identifiability: Identifiability | None = None
    explanation: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that vehicle and cloud know about one model.

    `model_discrepancy_std_v` is the error that no parameters can mend, beyond the measurement
    noise; along a trip it stays correlated over `discrepancy_correlation` of the trip (its length
    of correlation as a share of the trace; 0: each point is a surprise of its own).
    """

    schema: int
    name: Name
    model_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    features: Annotated[list[Feature], msgspec.Meta(min_length=1, max_length=32)]
    target: Target
    parameters: Annotated[list[Parameter], msgspec.Meta(min_length=1, max_length=32)]
    measurement_noise_std_v: Positive
    model_discrepancy_std_v: NonNegative
    cutoff_voltage_v: float
    error_threshold_v: Positive
    discrepancy_correlation: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    odometer_unit: str = "km"
    health: Health | None = None
    sensitivity: Sensitivity | None = None
    provenance: dict[str, Any] = {}

    @property
    def feature_names(self) -> tuple[str, ...]:
        """In the order of the graph's input."""
        return tuple(feature.name for feature in self.features)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """In the order of the graph's input."""
        return tuple(parameter.name for parameter in self.parameters)


def decode_manifest(raw: bytes, where: object) -> Manifest:
    """Parse and check a manifest; `where` names it in the error. Raises BundleError."""
    try:
        schema = msgspec.json.decode(raw, type=dict[str, Any]).get("schema")
        if schema != MANIFEST_SCHEMA:
            problem = f"its manifest has schema {schema!r}, this software knows {MANIFEST_SCHEMA}"
            raise BundleError(where, problem, "Upgrade the software, or train the bundle again.")
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(where, f"manifest.json: {error}", "Correct that field.") from error
    inconsistent = _first_problem(manifest)
    if inconsistent:
        raise BundleError(where, f"manifest.json: {inconsistent}", "Correct that field.")
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical, human-readable bytes; the same manifest gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _first_problem(manifest: Manifest) -> str | None:
    names = [*manifest.feature_names, manifest.target.name, *manifest.parameter_names]
    if len(set(names)) != len(names):
        return "a name stands twice among features, target and parameters"
    signals: list[Signal] = [*manifest.features, manifest.target]
    for ranged in signals:
        if not (math.isfinite(ranged.minimum) and ranged.minimum < ranged.maximum < math.inf):
            return f"{ranged.name} needs a finite minimum below its maximum"
    for parameter in manifest.parameters:
        if not parameter.lower < parameter.nominal < parameter.upper:
            return f"{parameter.name} needs lower < nominal < upper"
    return _health_problem(manifest)


def _health_problem(manifest: Manifest) -> str | None:
    health = manifest.health
    if health is None:
        return None
    needed = set(manifest.feature_names) - {health.swept_feature}
    if health.swept_feature not in manifest.feature_names or needed != set(health.reference):
        return "health needs one swept feature and a reference value for each other feature"
    return None if health.start < health.stop else "health needs start < stop"
