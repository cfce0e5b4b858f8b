"""Standard cycles are what their regulations say, and a car takes what physics asks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim import car
from firmware_sim.drive_cycles import (
    CYCLES,
    EXTRA_URBAN,
    M_S_PER_KMH,
    M_S_PER_MPH,
    URBAN,
    distance_m,
    speed_m_s,
)

MILE_M = 1609.344


@pytest.mark.parametrize(
    ("cycle", "seconds", "length_m", "tolerance_m", "highest_m_s"),
    [
        ("udds", 1369, 7.45 * MILE_M, 0.005 * MILE_M, 56.7 * M_S_PER_MPH),
        ("hwfet", 765, 10.26 * MILE_M, 0.005 * MILE_M, 59.9 * M_S_PER_MPH),
        ("us06", 600, 8.01 * MILE_M, 0.005 * MILE_M, 80.3 * M_S_PER_MPH),
        ("wltc", 1800, 23_266.0, 0.5, 131.3 * M_S_PER_KMH),
        ("nedc", 1180, 11_007.0, 10.0, 120.0 * M_S_PER_KMH),
    ],
)
def test_a_cycle_has_its_published_duration_distance_and_speed(
    cycle: str, seconds: int, length_m: float, tolerance_m: float, highest_m_s: float
) -> None:
    speed = speed_m_s(cycle)
    assert len(speed) == seconds + 1
    assert distance_m(speed) == pytest.approx(length_m, abs=tolerance_m)
    assert speed.max() == pytest.approx(highest_m_s)


def test_the_urban_cycle_has_the_phases_of_regulation_83() -> None:
    """Its own breakdown: 60 s idling, 8 changing gear, 36 accelerating, 57 steady, 34 braking."""
    begins = [0, *(speed for _, speed in URBAN)]
    found = dict.fromkeys(("idle", "up", "steady", "down"), 0)
    for (seconds, ends), before in zip(URBAN, begins, strict=False):
        phase = "idle" if ends == before == 0 else "up" if ends > before else "steady"
        found["down" if ends < before else phase] += seconds
    # Of the 8 s of gear changes 6 stand at a steady speed and 2 lead from 35 down to 32 km/h.
    assert found == {"idle": 60, "up": 36, "steady": 57 + 6, "down": 25 + 9 + 2}


def test_the_extra_urban_part_is_400_seconds_and_6955_metres() -> None:
    extra = speed_m_s("nedc")[780:]
    assert sum(seconds for seconds, _ in EXTRA_URBAN) == 400
    assert distance_m(extra) == pytest.approx(6955.0, abs=1.0)


@pytest.mark.parametrize("cycle", CYCLES)
def test_a_cycle_begins_and_ends_at_a_standstill_and_nobody_can_change_it(cycle: str) -> None:
    speed = speed_m_s(cycle)
    assert speed[0] == speed[-1] == 0.0
    assert (speed >= 0.0).all()
    assert np.abs(np.diff(speed)).max() < 4.5  # no car of these years does more in a second
    with pytest.raises(ValueError, match="read-only"):
        speed[0] = 1.0


def test_a_cycle_of_no_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="artemis"):
        speed_m_s("artemis")


@given(st.floats(1.0, 40.0), st.floats(0.0, 500.0), st.floats(-20.0, 40.0))
def test_steady_speed_costs_rolling_and_drag_alone(v: float, load: float, ambient: float) -> None:
    steady = np.full(5, v)
    force_n = car.wheel_force_n(steady, load, ambient)
    rolling_n = car.ROLLING_COEFFICIENT * (car.KERB_MASS_KG + load) * 9.81
    density = 1.2041 * 293.15 / (ambient + 273.15)
    assert force_n == pytest.approx(rolling_n + 0.5 * density * car.DRAG_AREA_M2 * v**2)


def test_inertia_gives_back_what_it_took() -> None:
    speed = speed_m_s("wltc")
    middle = 0.5 * (speed[1:] + speed[:-1])
    lossy = car.wheel_force_n(speed, 0.0, 20.0) * middle
    inertia_w = (1.0 + car.ROTATING_SHARE) * car.KERB_MASS_KG * np.diff(speed) * middle
    assert inertia_w.sum() == pytest.approx(0.0, abs=1e-6 * np.abs(inertia_w).sum())
    assert (lossy - inertia_w >= 0.0).all()


def test_a_standing_car_takes_its_auxiliaries_and_more_of_them_in_frost_and_heat() -> None:
    for ambient_c in (-10.0, 20.0, 35.0):
        power_w = car.cell_power_w(np.zeros(3), 100.0, ambient_c) * car.CELLS
        assert power_w == pytest.approx(car.auxiliary_w(ambient_c))
    assert car.auxiliary_w(-10.0) > car.auxiliary_w(35.0) > car.auxiliary_w(20.0)


def test_braking_gives_less_back_than_the_same_acceleration_took() -> None:
    up, down = np.array([10.0, 12.0]), np.array([12.0, 10.0])
    auxiliary_w = car.auxiliary_w(20.0) / car.CELLS
    taken_w = car.cell_power_w(up, 0.0, 20.0)[0] - auxiliary_w
    given_w = auxiliary_w - car.cell_power_w(down, 0.0, 20.0)[0]
    assert 0.0 < given_w < car.REGENERATION_EFFICIENCY * taken_w


def test_a_compact_car_takes_about_14_kwh_for_100_km_of_the_wltc() -> None:
    speed = speed_m_s("wltc")
    kwh = car.cell_power_w(speed, 150.0, 23.0).sum() * car.CELLS / 3.6e6
    assert 100_000.0 * kwh / distance_m(speed) == pytest.approx(14.0, abs=0.5)
