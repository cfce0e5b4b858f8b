"""The trips that thin cars drive: the published fleet, as arrays. Pure and seeded.

Must never show a car the simulator's truth.
"""

from __future__ import annotations

import numpy as np

from bench.offline_loop import Trip
from common.manifest import Manifest
from common.trace import TraceArrays
from demo.simulated import vehicles_of
from demo.vehicles import TripData
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

SEED = 601  # of a fleet that nothing was tuned on


def fleet_trips(vehicles: int, trips: int, manifest: Manifest) -> dict[str, list[Trip]]:
    """By vehicle, its trips in order."""
    fleet = simulate_fleet(FleetSettings(vehicles, trips, SEED))
    return {
        vehicle.vehicle_id: [_trip(trip, manifest) for trip in vehicle.trips]
        for vehicle in vehicles_of(fleet)
    }


def _trip(trip: TripData, manifest: Manifest) -> Trip:
    features = np.column_stack([trip.signals[f.name] for f in manifest.features])
    later = np.concatenate([[True], np.diff(trip.time_s) > 0])
    times = trip.time_s[later] - trip.time_s[0]
    whole = TraceArrays(times, features[later], trip.voltage_v[later])
    return Trip(trip.trip_id, float(trip.odometer[0]), whole, whole)
