"""What scenarios come to for one vehicle: what is left, the trip's voltages, the arrival.

Pure. Must never compute what `common` can: it puts its questions and joins its answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from cloud.api import derived_schemas
from cloud.api import what_if_schemas as schemas
from cloud.api.derived_views import interval_item, place_item, seeded
from cloud.api.views import Standing, estimate_fields
from cloud.store.tables import Vehicle
from common.errors import NoHealthError, QuestionError
from common.estimate import with_trip_spread
from common.manifest import Health, Manifest
from common.model import VoltageModel
from common.planned_trip import PlannedRow, PlannedTrip, plan_trip, planned_features
from common.remaining import Remaining, remaining_until_cutoff


def answer_of(
    vehicle: Vehicle, known: Standing, model: VoltageModel, scenarios: Sequence[schemas.Scenario]
) -> schemas.WhatIfAnswer:
    """Raises QuestionError (its place begins with the scenario's), NoHealthError."""
    outcomes = []
    for index, scenario in enumerate(scenarios):
        with _within(f"scenarios.{index}"):
            outcomes.append(_outcome(known, model, scenario))
    return schemas.WhatIfAnswer(
        **estimate_fields(vehicle, known),
        cutoff_voltage_v=known.manifest.cutoff_voltage_v,
        outcomes=outcomes,
    )


def _outcome(known: Standing, model: VoltageModel, scenario: schemas.Scenario) -> schemas.Outcome:
    if scenario.conditions is not None:
        started = _started(scenario.conditions, known.manifest)
        left = _left(known, model, started, scenario)
        plan = _straight(started, scenario, known.manifest)
    else:
        left = None
        plan = [PlannedRow(row.signals, row.time_s) for row in scenario.rows or ()]
    trip = _trip(known, model, plan) if plan else None
    return schemas.Outcome(
        name=scenario.name,
        conditions=left.conditions if left else None,
        remaining=interval_item(left.swept) if left else None,
        remaining_distance=interval_item(left.distance_km) if left and left.distance_km else None,
        arrives=trip.arrives if trip else None,
        arrival_probability=trip.arrival_probability if trip else None,
        arrival=_arrival(known, model, plan, trip) if trip else None,
        mean_crosses=place_item(trip.mean_crosses) if trip else None,
        band_crosses=place_item(trip.band_crosses) if trip else None,
        rows=_rows(trip) if trip else None,
    )


def _started(conditions: dict[str, float], manifest: Manifest) -> dict[str, float]:
    health = _sweep(manifest)
    return {health.swept_feature: health.start, **conditions}


def _left(
    known: Standing, model: VoltageModel, started: dict[str, float], scenario: schemas.Scenario
) -> Remaining:
    of_trip = with_trip_spread(known.estimate, known.manifest)
    return remaining_until_cutoff(
        of_trip, started, model, known.manifest, seeded(), scenario.consumption_per_km
    )


def _straight(
    started: dict[str, float], scenario: schemas.Scenario, manifest: Manifest
) -> list[PlannedRow]:
    """The swept feature rises evenly up to `until`, everything else stays. Raises QuestionError."""
    if scenario.until is None:
        return []
    if any(feature.moving_average for feature in manifest.features):
        raise QuestionError("until", "the model has moving averages: give rows with their times")
    health = _sweep(manifest)
    start = started[health.swept_feature]
    if scenario.until <= start:
        raise QuestionError("until", f"must lie beyond {start:g}, where it begins")
    others = {**health.reference, **started}
    swept = np.linspace(start, scenario.until, scenario.points).tolist()
    return [PlannedRow({**others, health.swept_feature: value}) for value in swept]


def _trip(known: Standing, model: VoltageModel, plan: Sequence[PlannedRow]) -> PlannedTrip:
    of_trip = with_trip_spread(known.estimate, known.manifest)
    return plan_trip(of_trip, plan, model, known.manifest, seeded())


def _arrival(
    known: Standing, model: VoltageModel, plan: Sequence[PlannedRow], trip: PlannedTrip
) -> schemas.Arrival:
    left = _left_at_end(known, model, plan)
    return schemas.Arrival(
        voltage=_rows(trip)[-1],
        remaining=interval_item(left.swept) if left else None,
        charge=_charge(left, known.manifest) if left else None,
    )


def _left_at_end(
    known: Standing, model: VoltageModel, plan: Sequence[PlannedRow]
) -> Remaining | None:
    """None where the bundle's sweep ends before the trip does, or there is none."""
    manifest = known.manifest
    last = planned_features(plan, manifest)[-1].tolist()
    health = manifest.health
    at_end = dict(zip(manifest.feature_names, last, strict=True))
    if health is None or at_end[health.swept_feature] >= health.stop:
        return None
    of_trip = with_trip_spread(known.estimate, manifest)
    return remaining_until_cutoff(of_trip, at_end, model, manifest, seeded())


def _charge(left: Remaining, manifest: Manifest) -> derived_schemas.IntervalItem:
    """left / (left + gone): it rises with what is left, so that quantiles stay quantiles."""
    health = _sweep(manifest)
    gone = left.conditions[health.swept_feature] - health.start

    def share(remaining: float | None) -> float | None:
        if remaining is None:
            return None
        return remaining / (remaining + gone) if remaining + gone > 0 else 0.0

    ends = left.swept
    return derived_schemas.IntervalItem(
        value=share(ends.value),
        std=None,
        low=share(ends.low),
        high=share(ends.high),
        unit="1",
        level=ends.level,
    )


def _rows(trip: PlannedTrip) -> list[derived_schemas.PlannedVoltage]:
    columns = (trip.voltage_v, trip.std_v, trip.low_v, trip.high_v)
    return [
        derived_schemas.PlannedVoltage(
            voltage_v=v, std_v=s, band95_lower_v=low, band95_upper_v=high
        )
        for v, s, low, high in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _sweep(manifest: Manifest) -> Health:
    if manifest.health is None:
        raise NoHealthError("it declares no feature to sweep")
    return manifest.health


@contextmanager
def _within(place: str) -> Iterator[None]:
    try:
        yield
    except QuestionError as error:
        raise QuestionError(f"{place}.{error.where}", error.problem) from error
