"""A car that sends summaries and nothing else: for what the way into the service can bear.

Must never compute what a vehicle would: the load must not be what limits.
"""

from __future__ import annotations

from typing import Any

from bench.fleet.thin_car import BAND95_V, COVERAGE95, Offer, ThinCar
from common.messages import TripSummary, encode, message_id

KM = 300.0


class SummaryCar(ThinCar):
    """Its trips are numbers."""

    def drive(self, trip: Any, now: float) -> list[Offer]:
        """The summary of trip number `trip`."""
        features = self.who.manifest.features
        summary = TripSummary(
            message_id=message_id(self.who.vehicle_id, f"trip-{trip}", "trip"),
            vehicle_id=self.who.vehicle_id,
            trip_id=f"trip-{trip}",
            bundle=self.who.bundle,
            revision=0,
            started_at=round(now, 3),
            duration_s=18000.0,
            odometer_start=KM * trip,
            odometer_end=KM * (trip + 1),
            samples=175,
            refused_samples=0,
            error_v=0.02,
            band95_v=BAND95_V,
            coverage95=COVERAGE95,
            feature_means=[(f.minimum + f.maximum) / 2 for f in features],
            breach=False,
        )
        self.counts.trips.append(summary.message_id)
        offer = Offer("trip", summary.message_id, encode(summary))
        self._open[offer.message_id] = offer
        return [offer]
