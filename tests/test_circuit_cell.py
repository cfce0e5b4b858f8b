"""The equivalent-circuit cell: its circuit, its heat, its balance sheets, and how it ages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_sim import circuit_ageing, circuit_cell
from firmware_sim.circuit_ageing import (
    NEW,
    YEAR_S,
    Constitution,
    Stretch,
    aged,
    capacity_loss,
    cycle_factor,
    worn,
)
from firmware_sim.circuit_cell import (
    EMPTY_V,
    FULL_V,
    LOWEST_V,
    OCV_SOC,
    OCV_V,
    REFERENCE_K,
    Aged,
    State,
    branches,
    current_for_a,
    heat_of_w,
    open_circuit_v,
    relaxed,
    rested,
    step,
)
from firmware_sim.circuit_reference import (
    pack_energy_kwh,
    range_km,
    settled_v,
    usable_charge_ah,
    usable_energy_wh,
)

AVERAGE = Constitution(severity=1.0, knee_loss=0.3, resistance_share=1.0)
SOC = st.floats(0.0, 1.0)
KELVIN = st.floats(253.15, 323.15)


# The circuit


def test_the_open_circuit_voltage_rises_with_every_point_of_charge() -> None:
    assert (np.diff(OCV_SOC) > 0).all()
    assert (np.diff(OCV_V) > 0).all()
    assert (OCV_V[0], OCV_V[-1]) == (2.5, FULL_V)


@given(st.lists(SOC, min_size=2, max_size=20, unique=True))
def test_a_fuller_cell_never_stands_lower(charges: list[float]) -> None:
    assert (np.diff(open_circuit_v(np.sort(charges))) >= 0).all()


@given(
    st.floats(-1.0, 1.0),
    st.floats(-1.0, 1.0),
    st.floats(0.1, 5_000.0),
    st.lists(st.floats(0.0, 600.0), min_size=1, max_size=8),
)
def test_a_branch_relaxes_as_the_analytic_solution_however_the_time_is_cut(
    start_v: float, settled_voltage: float, tau_s: float, parts_s: list[float]
) -> None:
    voltage: float | np.ndarray = start_v  # type: ignore[type-arg]
    for part_s in parts_s:
        voltage = relaxed(voltage, settled_voltage, part_s, tau_s)
    share = math.exp(-sum(parts_s) / tau_s)
    assert voltage == pytest.approx(
        settled_voltage + (start_v - settled_voltage) * share, abs=1e-12
    )


@pytest.mark.parametrize("step_s", [1.0, 7.0, 50.0])
def test_a_current_step_gives_the_response_of_r0_and_two_rc_branches(step_s: float) -> None:
    # A cell so large that neither its charge nor, cooled back each step, its temperature moves.
    huge, current_a, soc = Aged(1e12, 1.3), 2.0, 0.6
    circuit = branches(soc, REFERENCE_K, huge.growth)
    state, elapsed_s = rested(soc, REFERENCE_K), 0.0
    for _ in range(20):
        state, voltage_v = step(state, current_a, step_s, huge, REFERENCE_K)
        state = replace(state, temperature_k=np.array([REFERENCE_K]))
        elapsed_s += step_s
        drop_v = current_a * (
            circuit.r0
            + circuit.r1 * (1 - math.exp(-elapsed_s / circuit.tau1))
            + circuit.r2 * (1 - math.exp(-elapsed_s / circuit.tau2))
        )
        assert voltage_v == pytest.approx(open_circuit_v(soc) - drop_v, abs=1e-9)


@given(SOC, KELVIN, st.floats(1.0, 3.0))
def test_cold_emptiness_and_age_raise_every_resistance(
    soc: float, kelvin: float, growth: float
) -> None:
    here = branches(soc, kelvin, growth)
    for worse in (
        branches(soc, kelvin - 5.0, growth),
        branches(soc, kelvin, growth + 0.1),
        branches(soc - 0.05, kelvin, growth),
    ):
        for name in ("r0", "r1", "tau1", "r2", "tau2"):
            assert getattr(worse, name) > getattr(here, name), name


def test_the_reference_resistances_are_those_of_a_new_half_full_cell() -> None:
    circuit = branches(0.5, REFERENCE_K, 1.0)
    expected = circuit_cell.RESISTANCES_OHM
    assert [circuit.r0, circuit.r1, circuit.r2] == pytest.approx(list(expected), rel=0.04)
    assert [circuit.tau1, circuit.tau2] == pytest.approx([8.0, 180.0], rel=0.04)


# Power, charge and energy


@given(st.floats(0.1, 0.9), KELVIN, st.floats(-5.0, 8.0))
def test_the_current_gives_the_power_that_was_asked(
    soc: float, kelvin: float, power: float
) -> None:
    state = rested(soc, kelvin)
    circuit = branches(soc, kelvin, 1.0)
    current_a = current_for_a(power, state, circuit)
    terminal_v = open_circuit_v(soc) - current_a * circuit.r0
    if LOWEST_V + 1e-9 < terminal_v < FULL_V - 1e-9:
        assert current_a * terminal_v == pytest.approx(power, abs=1e-9)
    else:
        assert abs(current_a * terminal_v) <= abs(power) + 1e-9


def test_the_bms_holds_back_what_would_leave_the_window_of_voltage() -> None:
    full, empty = rested(1.0, REFERENCE_K), rested(0.02, REFERENCE_K)
    assert current_for_a(-20.0, full, branches(1.0, REFERENCE_K, 1.0)) == pytest.approx(0.0)
    circuit = branches(0.02, REFERENCE_K, 1.0)
    current_a = current_for_a(30.0, empty, circuit)
    assert open_circuit_v(0.02) - current_a * circuit.r0 == pytest.approx(LOWEST_V)


def test_charge_out_is_charge_lost_and_energy_is_terminal_heat_and_branches() -> None:
    rng = np.random.default_rng(3)
    cell, state = Aged(4.2, 1.4), rested(0.8, 288.15)
    out_ah = stored_j = terminal_j = heat_j = 0.0
    step_s = 0.05
    for current_a in np.repeat(rng.normal(1.0, 2.0, 60), 200):
        circuit = branches(state.soc, state.temperature_k, cell.growth)
        after, voltage_v = step(state, current_a, step_s, cell, 283.15)
        middle_v = 0.5 * (open_circuit_v(state.soc) + open_circuit_v(after.soc))
        out_ah += current_a * step_s / 3600.0
        stored_j += float(middle_v[0]) * current_a * step_s
        terminal_j += float(voltage_v[0]) * current_a * step_s
        heat_j += float(heat_of_w(state, circuit, current_a)[0]) * step_s
        state = after
    assert float(state.soc[0]) == pytest.approx(0.8 - out_ah / 4.2, abs=1e-12)
    circuit = branches(state.soc, state.temperature_k, cell.growth)
    in_branches_j = float(
        (0.5 * circuit.tau1 / circuit.r1 * state.v1**2)[0]
        + (0.5 * circuit.tau2 / circuit.r2 * state.v2**2)[0]
    )
    assert stored_j - in_branches_j == pytest.approx(terminal_j + heat_j, rel=2e-3)


def test_a_cell_warms_by_its_losses_and_settles_where_it_sheds_them() -> None:
    huge, state = Aged(1e12, 1.0), rested(0.5, REFERENCE_K)
    for _ in range(40):
        state, _ = step(state, 3.0, 600.0, huge, REFERENCE_K)
    losses_w = heat_of_w(state, branches(state.soc, state.temperature_k, 1.0), 3.0)
    expected_k = REFERENCE_K + losses_w / circuit_cell.CONDUCTANCE_W_K
    assert state.temperature_k == pytest.approx(expected_k, abs=0.05)
    assert float(state.temperature_k[0]) > REFERENCE_K + 5.0


def test_at_rest_nothing_happens() -> None:
    state = rested(0.5, 280.0)
    after, voltage_v = step(state, 0.0, 3600.0, Aged(), 280.0)
    for name in State.__dataclass_fields__:
        assert getattr(after, name) == pytest.approx(getattr(state, name)), name
    assert voltage_v == pytest.approx(float(open_circuit_v(0.5)))


# Ageing


def year(celsius: float = 15.0, soc: float = 0.6, ah: float = 400.0, years: float = 1.0) -> Stretch:
    return Stretch(years * YEAR_S, ah, celsius + 273.15, soc)


def test_a_cell_never_gets_younger() -> None:
    wear, cells = NEW, [aged(NEW, AVERAGE)]
    for celsius in (5.0, 25.0, 35.0, -5.0) * 5:
        wear = worn(wear, year(celsius), 1.0)
        cells.append(aged(wear, AVERAGE))
    assert cells[0].capacity_ah == circuit_cell.NEW_CAPACITY_AH
    assert cells[0].growth == 1.0
    assert (np.diff([float(cell.capacity_ah) for cell in cells]) < 0).all()
    assert (np.diff([float(cell.growth) for cell in cells]) > 0).all()


def test_the_calendar_takes_with_the_root_of_time_and_no_matter_how_time_is_cut() -> None:
    parked = year(25.0, 0.5, 0.0, 10.0)
    assert capacity_loss(worn(NEW, parked, 1.0), AVERAGE) == pytest.approx(0.08)
    wear = NEW
    for _ in range(40):
        wear = worn(wear, year(25.0, 0.5, 0.0, 1.0), 1.0)
    assert capacity_loss(wear, AVERAGE) == pytest.approx(0.16)


def test_cycles_take_in_proportion_to_the_charge_put_through() -> None:
    at_best = Stretch(0.0, 1_000.0 * 10.0, 298.15, 0.5)
    assert capacity_loss(worn(NEW, at_best, 1.0), AVERAGE) == pytest.approx(0.12)


def test_heat_and_full_charge_age_by_the_calendar_heat_and_cold_by_cycles() -> None:
    assert worn(NEW, year(35.0), 1.0).calendar_squared > worn(NEW, year(15.0), 1.0).calendar_squared
    assert worn(NEW, year(soc=0.9), 1.0).calendar_squared > worn(NEW, year(), 1.0).calendar_squared
    assert worn(NEW, year(5.0), 1.0).cycles > worn(NEW, year(25.0), 1.0).cycles
    assert cycle_factor(298.15) == 1.0
    assert cycle_factor(278.15) > 1.0 < cycle_factor(318.15)


def test_beyond_its_knee_a_cell_fades_faster() -> None:
    wear = circuit_ageing.Wear(cycles=0.4)
    late, early = replace(AVERAGE, knee_loss=0.4), replace(AVERAGE, knee_loss=0.3)
    assert capacity_loss(wear, late) == pytest.approx(0.4)
    assert capacity_loss(wear, early) == pytest.approx(0.4 + circuit_ageing.KNEE_GAIN * 0.01)


# The reference


def test_the_reference_discharge_ends_at_the_cut_off() -> None:
    charge_ah = usable_charge_ah(Aged(), 3.2)
    assert settled_v(np.array(1 - charge_ah / 5.0), 1.5, 1.0) == pytest.approx(3.2, abs=1e-3)
    assert usable_charge_ah(Aged(5.0, 50.0), 3.2) == 0.0


@given(st.floats(2.0, 5.0), st.floats(1.0, 2.0))
def test_less_capacity_and_more_resistance_leave_less(capacity_ah: float, growth: float) -> None:
    cell = Aged(capacity_ah, growth)
    for worse in (Aged(capacity_ah - 0.1, growth), Aged(capacity_ah, growth + 0.1)):
        assert usable_charge_ah(worse) < usable_charge_ah(cell)
        assert usable_energy_wh(worse) < usable_energy_wh(cell)
        assert range_km(worse) < range_km(cell)
    assert EMPTY_V * usable_charge_ah(cell) < usable_energy_wh(cell)
    assert usable_energy_wh(cell) < FULL_V * usable_charge_ah(cell)


def test_a_new_pack_holds_37_kwh_and_carries_265_km() -> None:
    assert pack_energy_kwh() == pytest.approx(37.0, abs=0.3)
    assert range_km(Aged()) == pytest.approx(265.0, abs=3.0)
