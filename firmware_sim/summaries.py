"""What is worth telling of simulated data in a few lines: how many, how far, how aged.

Pure. Must never round anything but what it tells.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from firmware_sim import battery
from firmware_sim.circuit_cell import NEW_CAPACITY_AH
from firmware_sim.circuit_fleet import CircuitFleet
from firmware_sim.published_fleet import FleetData
from firmware_sim.pybamm_cells import CycledCells


def summary_of_published(fleet: FleetData) -> dict[str, Any]:
    """Of the published fleet."""
    settings = fleet.settings
    degradation = fleet.degradation_at_end()
    health = battery.usable_energy_wh(degradation) / battery.usable_energy_wh(0.0)
    return {
        "vehicles": settings.vehicles,
        "trips": settings.vehicles * settings.trips,
        "samples": fleet.samples.voltage_v.size,
        "seed": settings.seed,
        "mean_odometer_km": round(float(fleet.trips.distance_km.sum(axis=1).mean()), 1),
        "mean_degradation_at_end": round(float(degradation.mean()), 4),
        "mean_state_of_health_at_end": round(float(health.mean()), 4),
        "lowest_state_of_health_at_end": round(float(np.min(health)), 4),
    }


def summary_of_circuit(fleet: CircuitFleet) -> dict[str, Any]:
    """Of an equivalent-circuit fleet; its end is the start of the last recorded trip."""
    settings = fleet.settings
    last = [vehicle.trips[-1] for vehicle in fleet.vehicles]
    health = np.array([trip.cell.capacity_ah for trip in last]) / NEW_CAPACITY_AH
    growth = np.array([trip.cell.growth for trip in last])
    rows = sum(len(trip.log.time_s) for vehicle in fleet.vehicles for trip in vehicle.trips)
    return {
        "vehicles": settings.vehicles,
        "trips": settings.vehicles * settings.trips,
        "samples": rows,
        "seed": settings.seed,
        "odometer_km": round(last[0].odometer_start_km, 1),
        "mean_state_of_health_at_end": round(float(health.mean()), 4),
        "lowest_state_of_health_at_end": round(float(health.min()), 4),
        "mean_resistance_growth_at_end": round(float(growth.mean()), 4),
    }


def summary_of_cells(cycled: CycledCells) -> dict[str, Any]:
    """Of cells that PyBaMM cycled; health relative to the end of each one's first cycle."""
    cells = cycled.cells
    health = np.array([cell.cycles[-1].capacity_ah / cell.cycles[0].capacity_ah for cell in cells])
    return {
        "cells": len(cells),
        "cycles": sum(len(cell.cycles) for cell in cells),
        "samples": sum(len(cycle.time_s) for cell in cells for cycle in cell.cycles),
        "seed": cycled.settings.seed,
        "mean_state_of_health_at_end": round(float(health.mean()), 4),
        "lowest_state_of_health_at_end": round(float(health.min()), 4),
    }
