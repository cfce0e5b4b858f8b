"""How the equivalent-circuit cell ages: by the calendar, by throughput, and over a knee.

Pure. Shapes from the literature, figures of our own (about a fifth of the capacity gone after ten
years and 200,000 km):

- calendar: capacity lost grows with the square root of time (a film that slows its own growth:
  M. Broussely et al., J. Power Sources 97–98 (2001) 13), faster when warm (Arrhenius) and when full
  (P. Keil et al., J. Electrochem. Soc. 163 (2016) A1872). Integrated as the square of the loss,
  which is linear in time, so that temperature and charge may change on the way;
- cycles: linear in the charge put through, least at about 25 °C, more in the cold (plating) and in
  the heat (T. Waldmann et al., J. Power Sources 262 (2014) 129);
- knee: beyond a loss that is each cell's own, an additional loss with the square of the excess.

Must never draw a random number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from firmware_sim.circuit_cell import (
    GAS_CONSTANT_J_MOL_K,
    NEW_CAPACITY_AH,
    REFERENCE_K,
    Aged,
)

DAY_S: Final = 86_400.0
YEAR_S: Final = 365.25 * DAY_S

CALENDAR_LOSS: Final = 0.08  # after CALENDAR_AFTER_S at 25 °C and half full
CALENDAR_AFTER_S: Final = 10.0 * YEAR_S
CALENDAR_ACTIVATION_J_MOL: Final = 40_000.0
CALENDAR_SOC_GAIN: Final = 1.2  # of the rate of loss, from half full to full: by exp(0.6)
CYCLE_LOSS_PER_AH: Final = 0.12 / (1_000.0 * 2.0 * NEW_CAPACITY_AH)  # 12 % in 1,000 full cycles
MILDEST_C: Final = 25.0
COLD_PER_K: Final = 0.03
HEAT_PER_K: Final = 0.025
KNEE_GAIN: Final = 6.0
RESISTANCE_PER_LOSS: Final = 2.5  # growth of R0 per capacity lost, times each cell's own


@dataclass(frozen=True)
class Wear:
    """What calendar and cycles took so far: the calendar's loss squared, the cycles' loss."""

    calendar_squared: float = 0.0
    cycles: float = 0.0

    @property
    def loss_before_knee(self) -> float:
        """Share of the capacity lost to both."""
        return math.sqrt(self.calendar_squared) + self.cycles


@dataclass(frozen=True)
class Constitution:
    """What makes a cell its own: severity (average 1), where its knee is, resistance per loss."""

    severity: float
    knee_loss: float
    resistance_share: float


@dataclass(frozen=True)
class Stretch:
    """A stretch of a life: how long, charge in and out, how warm and how full meanwhile."""

    seconds: float
    throughput_ah: float
    temperature_k: float
    mean_soc: float


NEW: Final = Wear()


def worn(wear: Wear, stretch: Stretch, severity: float) -> Wear:
    """The wear after one more stretch."""
    rate = severity * calendar_rate(stretch.temperature_k, stretch.mean_soc)
    per_ah = severity * CYCLE_LOSS_PER_AH * cycle_factor(stretch.temperature_k)
    return Wear(
        wear.calendar_squared + rate * rate * stretch.seconds,
        wear.cycles + per_ah * stretch.throughput_ah,
    )


def calendar_rate(temperature_k: float, mean_soc: float) -> float:
    """Loss per square root of a second."""
    at_reference = CALENDAR_LOSS / math.sqrt(CALENDAR_AFTER_S)
    inverse_k = (1.0 / REFERENCE_K - 1.0 / temperature_k) / GAS_CONSTANT_J_MOL_K
    warmth = math.exp(CALENDAR_ACTIVATION_J_MOL * inverse_k)
    return at_reference * warmth * math.exp(CALENDAR_SOC_GAIN * (mean_soc - 0.5))


def cycle_factor(temperature_k: float) -> float:
    """How much worse than at MILDEST_C a cycle is: 1 there, a V of two exponentials around it."""
    above_k = temperature_k - 273.15 - MILDEST_C
    return math.exp(HEAT_PER_K * above_k if above_k > 0.0 else -COLD_PER_K * above_k)


def capacity_loss(wear: Wear, constitution: Constitution) -> float:
    """Share of the new capacity that is gone."""
    loss = wear.loss_before_knee
    return loss + KNEE_GAIN * max(loss - constitution.knee_loss, 0.0) ** 2


def aged(wear: Wear, constitution: Constitution) -> Aged:
    """The cell with this wear. Its capacity is below zero when it is worn out beyond the model."""
    loss = capacity_loss(wear, constitution)
    growth = 1.0 + RESISTANCE_PER_LOSS * constitution.resistance_share * loss
    return Aged(NEW_CAPACITY_AH * (1.0 - loss), growth)
