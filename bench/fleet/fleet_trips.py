"""The trips that thin cars drive: the published fleet, as arrays. Pure and seeded.

Must never show a car the simulator's truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.offline_loop import TRACE_POINTS, Trip
from common.manifest import Manifest
from common.messages import Trace
from common.thinning import thin
from common.trace import TraceArrays, to_wire
from demo.simulated import vehicles_of
from demo.vehicles import TripData
from firmware_sim.published_fleet import FleetSettings, simulate_fleet

SEED = 601  # of a fleet that nothing was tuned on


@dataclass(frozen=True)
class Journey:
    """A trip and its trace as it travels: known before the vehicle drives.

    A vehicle has a computer of its own for that, and here all of them share the service's.
    """

    trip: Trip
    wire: Trace


def fleet_trips(vehicles: int, trips: int, manifest: Manifest) -> dict[str, list[Journey]]:
    """By vehicle, its trips in order."""
    fleet = simulate_fleet(FleetSettings(vehicles, trips, SEED))
    return {
        vehicle.vehicle_id: [_journey(trip, manifest) for trip in vehicle.trips]
        for vehicle in vehicles_of(fleet)
    }


def _journey(trip: TripData, manifest: Manifest) -> Journey:
    features = np.column_stack([trip.signals[f.name] for f in manifest.features])
    later = np.concatenate([[True], np.diff(trip.time_s) > 0])
    times = trip.time_s[later] - trip.time_s[0]
    whole = TraceArrays(times, features[later], trip.voltage_v[later])
    kept = thin(whole, TRACE_POINTS)
    return Journey(Trip(trip.trip_id, float(trip.odometer[0]), whole, kept), to_wire(kept))
