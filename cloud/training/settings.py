"""What a training run is told. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloud.training.candidates import Overrides
from cloud.training.errors import OptionError
from cloud.training.selection import Choice
from cloud.training.sobol import SobolSettings
from cloud.training.table import TableColumns, TripChoice
from common.manifest import LARGEST, MAX_NAME, MovingAverage


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that shapes a bundle apart from the table itself.

    `features` in the order of the graph; a moving average that is not named there comes last.
    `ranges` are plausible ranges by feature or target; `reference` the values at which the other
    features stand while `health_sweep` grows. None means: derived from the table (see
    `cloud.training.manifest_builder`).
    """

    features: tuple[str, ...]
    target: str
    name: str = "voltage-model"
    trips: TripChoice = field(default_factory=TripChoice)
    moving_averages: Mapping[str, MovingAverage] = field(default_factory=dict)
    hidden: tuple[int, ...] = (8, 8)
    seed: int = 0
    noise_std_v: float = 0.01
    error_threshold_v: float = 0.05
    cutoff_voltage_v: float | None = None
    odometer_unit: str = "km"
    units: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    health_sweep: str | None = None
    reference: Mapping[str, float] = field(default_factory=dict)
    overrides: Overrides = field(default_factory=Overrides)
    choice: Choice = field(default_factory=Choice)
    sobol: SobolSettings = field(default_factory=SobolSettings)

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise OptionError("hidden", f"{self.hidden} has no units", "Give sizes such as 8,8.")
        _require_volts("noise-std", self.noise_std_v)
        _require_volts("threshold", self.error_threshold_v)
        cutoff_v = self.cutoff_voltage_v
        if cutoff_v is not None and not abs(cutoff_v) <= LARGEST:
            raise OptionError("cutoff-voltage", f"{cutoff_v:g} V makes no sense", "Give volts.")
        if not 0 < len(self.name) <= MAX_NAME:
            raise OptionError("name", "it is empty or too long", f"1 to {MAX_NAME} characters.")

    @property
    def columns(self) -> TableColumns:
        """The columns that the table must have for this model."""
        features = tuple(dict.fromkeys([*self.features, *self.moving_averages]))
        return TableColumns(features, self.target, self.moving_averages)


def _require_volts(option: str, volts: float) -> None:
    if not 0 < volts <= LARGEST:  # also NaN
        raise OptionError(option, f"{volts:g} V makes no sense", "Give a number above 0.")
