"""Turn a recorded run and its measured trips into what the report shows.

Pure but for the model call. The frozen error is the bundle's nominal parameters on the same
samples; truth, where there is any, is only compared with, never learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from common.bundle import Bundle
from common.calibration import Estimate, Settings, align, extrapolate, voltage_band
from common.health import StateOfHealth, state_of_health
from common.manifest import Manifest
from common.model import VoltageModel
from demo.history import History, RecordedRevision, RecordedTrip
from demo.results import ExampleTrip, RevisionRow, TripRow, VoltageHistory
from demo.vehicles import FeatureRows, FloatArray, TripData, VehicleData, feature_rows

HISTORY_POINTS = 40_000
# For each trip of a fleet: a quarter of what one vehicle is worth moves the ends by some 4 % of it.
HEALTH_SAMPLES = 256


@dataclass(frozen=True)
class Evaluation:
    """The rows and curves of a report."""

    trips: list[TripRow]
    revisions: list[RevisionRow]
    example: ExampleTrip | None
    history: VoltageHistory
    coverage95: float


class Evaluator:
    """Evaluates one run of one bundle."""

    def __init__(self, bundle: Bundle, history: History) -> None:
        self.manifest: Manifest = bundle.manifest
        self.model = VoltageModel(bundle)
        self.history = history
        self.settings = Settings()
        self._nominal = np.array([p.nominal for p in bundle.manifest.parameters])

    def evaluate(self, vehicles: Sequence[VehicleData]) -> Evaluation:
        """All trips of all vehicles; example and voltage history are the first vehicle's."""
        trips = [row for vehicle in vehicles for row in self._trip_rows(vehicle)]
        first = vehicles[0]
        coverages = [trip.coverage95 for trip in self.history.trips]
        return Evaluation(
            trips=trips,
            revisions=[
                self._revision_row(recorded, recorded.revision.cause.trip_id)
                for recorded in self.history.revisions
                if recorded.revision.cause.trip_id
            ],
            example=self._example(first, [t for t in trips if t.vehicle_id == first.vehicle_id]),
            history=self._voltage_history(first),
            coverage95=float(np.mean(coverages)) if coverages else 0.0,
        )

    def _trip_rows(self, vehicle: VehicleData) -> list[TripRow]:
        recorded = self._recorded(vehicle.vehicle_id)
        estimates = self.history.estimates(vehicle.vehicle_id, self.manifest)
        causes = {
            found.revision.cause.trip_id
            for found in self.history.revisions
            if found.revision.vehicle_id == vehicle.vehicle_id and found.verdict == "applied"
            if found.revision.cause.trip_id
        }
        return [
            self._trip_row(vehicle, trip, recorded[trip.trip_id], estimates, causes)
            for trip in vehicle.trips
            if trip.trip_id in recorded
        ]

    def _trip_row(
        self,
        vehicle: VehicleData,
        trip: TripData,
        recorded: RecordedTrip,
        estimates: dict[int, Estimate],
        causes: set[str],
    ) -> TripRow:
        rows = feature_rows(trip, self.manifest)
        frozen = self.model.predict(rows.features, self._nominal)
        health = self._health_after(recorded, estimates)
        return TripRow(
            vehicle_id=vehicle.vehicle_id,
            trip_id=trip.trip_id,
            odometer=recorded.odometer,
            error_frozen_v=float(np.abs(frozen - trip.voltage_v[rows.rows]).mean()),
            error_v=recorded.error_v,
            breach=recorded.breach,
            revision=recorded.revision,
            updated=trip.trip_id in causes,
            health=health.ratio.value if health else None,
            health_std=health.ratio.std if health else None,
            health_low=health.ratio.low if health else None,
            health_high=health.ratio.high if health else None,
            health_truth=vehicle.health_truth.get(trip.trip_id),
        )

    def _health_after(
        self, recorded: RecordedTrip, estimates: dict[int, Estimate]
    ) -> StateOfHealth | None:
        """Health by the revision in force during the trip, extrapolated to the trip's odometer."""
        if self.manifest.health is None:
            return None
        there = extrapolate(estimates[recorded.revision], self.manifest, recorded.odometer)
        rng = np.random.default_rng(0)
        return state_of_health(there, self.model, self.manifest, rng, HEALTH_SAMPLES)

    def _recorded(self, vehicle_id: str) -> dict[str, RecordedTrip]:
        return {t.trip_id: t for t in self.history.trips if t.vehicle_id == vehicle_id}

    def _revision_row(self, recorded: RecordedRevision, trip_id: str) -> RevisionRow:
        revision = recorded.revision
        estimates = self.history.estimates(revision.vehicle_id, self.manifest)
        count = len(revision.theta)
        std = np.sqrt(np.diagonal(estimates[revision.number].covariance)[:count])
        return RevisionRow(
            vehicle_id=revision.vehicle_id,
            number=revision.number,
            trip_id=trip_id,
            odometer=revision.odometer,
            theta=revision.theta,
            theta_std=std.tolist(),
            nis_per_point=revision.cause.nis / revision.cause.points,
            error_before_v=revision.cause.error_before_v,
            error_after_v=revision.cause.error_after_v,
            verdict=recorded.verdict,
        )

    def _example(self, vehicle: VehicleData, rows: Sequence[TripRow]) -> ExampleTrip | None:
        """The update in the second half of life that moved the error most."""
        updated = [row for row in rows[len(rows) // 2 :] if row.updated] or [
            row for row in rows if row.updated
        ]
        if not updated:
            return None
        row = max(updated, key=lambda row: row.error_v)
        trip = next(trip for trip in vehicle.trips if trip.trip_id == row.trip_id)
        caused = next(
            found.revision.number
            for found in self.history.revisions
            if found.revision.vehicle_id == vehicle.vehicle_id
            and found.revision.cause.trip_id == row.trip_id
        )
        return self._example_trip(vehicle.vehicle_id, trip, row, caused)

    def _example_trip(
        self, vehicle_id: str, trip: TripData, row: TripRow, after: int
    ) -> ExampleTrip:
        estimates = self.history.estimates(vehicle_id, self.manifest)
        rows = feature_rows(trip, self.manifest)
        bands = [
            voltage_band(
                self._of_trip(estimates[number], row.odometer, rows, trip),
                rows.features,
                self.model,
                self.manifest,
                self.settings,
            )
            for number in (row.revision, after)
        ]
        label, axis = self._axis(trip, rows)
        return ExampleTrip(
            vehicle_id=vehicle_id,
            trip_id=trip.trip_id,
            axis_label=label,
            axis=axis,
            measured_v=trip.voltage_v[rows.rows],
            frozen_v=self.model.predict(rows.features, self._nominal),
            before_v=bands[0][0],
            before_std_v=bands[0][1],
            after_v=bands[1][0],
            after_std_v=bands[1][1],
        )

    def _of_trip(
        self, estimate: Estimate, odometer: float, rows: FeatureRows, trip: TripData
    ) -> Estimate:
        """As the vehicle predicted the trip: extrapolated to its start, aligned there."""
        there = extrapolate(estimate, self.manifest, odometer)
        voltage_v = float(trip.voltage_v[rows.rows[0]])
        return align(there, rows.features[0], voltage_v, self.model, self.manifest)

    def _axis(self, trip: TripData, rows: FeatureRows) -> tuple[str, FloatArray]:
        """The swept feature where there is one, else the time within the trip."""
        if self.manifest.health is None:
            times = trip.time_s[rows.rows]
            return "time in the trip (s)", times - times[0]
        index = self.manifest.feature_names.index(self.manifest.health.swept_feature)
        feature = self.manifest.features[index]
        return f"{feature.name} ({feature.unit})", rows.features[:, index]

    def _voltage_history(self, vehicle: VehicleData) -> VoltageHistory:
        recorded = self._recorded(vehicle.vehicle_id)
        estimates = self.history.estimates(vehicle.vehicle_id, self.manifest)
        columns = [
            self._trip_history(trip, recorded[trip.trip_id], estimates)
            for trip in vehicle.trips
            if trip.trip_id in recorded
        ]
        joined = np.concatenate(columns, axis=1)
        thinned = joined[:, :: max(1, joined.shape[1] // HISTORY_POINTS)]
        return VoltageHistory(vehicle.vehicle_id, *thinned)

    def _trip_history(
        self, trip: TripData, recorded: RecordedTrip, estimates: dict[int, Estimate]
    ) -> FloatArray:
        """[4, m]: odometer, measured, frozen, living."""
        rows = feature_rows(trip, self.manifest)
        there = self._of_trip(estimates[recorded.revision], recorded.odometer, rows, trip)
        return np.stack(
            [
                trip.odometer[rows.rows],
                trip.voltage_v[rows.rows],
                self.model.predict(rows.features, self._nominal),
                self.model.predict(rows.features, there.theta),
            ]
        )


def streaming_bytes(vehicles: Sequence[VehicleData]) -> int:
    """What publishing every sample as one JSON message would cost: payloads and topics."""
    return sum(_trip_streaming_bytes(v.vehicle_id, trip) for v in vehicles for trip in v.trips)


def _trip_streaming_bytes(vehicle_id: str, trip: TripData) -> int:
    topic = len(f"twin/v1/{vehicle_id}/sample")
    names = list(trip.signals)
    columns = [np.round(trip.signals[name], 4).tolist() for name in names]
    rows = zip(
        np.round(trip.time_s, 2).tolist(),
        np.round(trip.odometer, 3).tolist(),
        np.round(trip.voltage_v, 4).tolist(),
        *columns,
        strict=True,
    )
    keys = ["time_s", "odometer", "voltage_v", *names]
    fixed = {"schema": 1, "vehicle_id": vehicle_id, "trip_id": trip.trip_id}
    return sum(
        topic + len(msgspec.json.encode({**fixed, **dict(zip(keys, row, strict=True))}))
        for row in rows
    )
