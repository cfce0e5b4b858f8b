"""From an estimate to what the API answers about quantities derived from it.

Must never give a quantity without the state of the estimate it is read off. The draws are seeded:
the same question has the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Final

import numpy as np

from cloud.api import derived_schemas as schemas
from cloud.api.views import Standing, estimate_fields, utc
from cloud.mileage import DAY_S, last_moment, mileage_of
from cloud.store.tables import Trip, Vehicle
from common.errors import QuestionError
from common.estimate import with_trip_spread
from common.forecast import Mileage, forecast
from common.health import state_of_health, swept_unit
from common.messages import MAX_ODOMETER
from common.model import VoltageModel
from common.planned_trip import Place, PlannedRow, plan_trip
from common.remaining import remaining_until_cutoff
from common.sampling import Interval

SEED: Final = 0
DEFAULT_HORIZON_DAYS: Final = 3652.5  # ten years of its own mileage


def health_of(vehicle: Vehicle, known: Standing, model: VoltageModel) -> schemas.Health:
    """State of health where the estimate stands."""
    soh = state_of_health(known.estimate, model, known.manifest, seeded())
    ratio, usable = (soh.ratio, soh.usable) if soh else (None, None)
    return schemas.Health(
        **estimate_fields(vehicle, known),
        state_of_health=ratio.value if ratio else None,
        state_of_health_std=ratio.std if ratio else None,
        band95_lower=ratio.low if ratio else None,
        band95_upper=ratio.high if ratio else None,
        usable=usable.value if usable else None,
        usable_std=usable.std if usable else None,
        usable_band95_lower=usable.low if usable else None,
        usable_band95_upper=usable.high if usable else None,
        usable_unit=swept_unit(known.manifest),
        last_trip_received_at=utc(vehicle.last_trip_received_at),
    )


def forecast_of(
    vehicle: Vehicle,
    known: Standing,
    model: VoltageModel,
    trips: Sequence[Trip],
    now: float,
    question: schemas.ForecastQuestion,
) -> schemas.Forecast:
    """When health falls to the threshold; `trips` with the highest odometer first.

    Raises QuestionError, NoHealthError.
    """
    mileage, source = _mileage(question, trips)
    horizon = question.horizon or _default_horizon(mileage)
    found = forecast(
        known.estimate, question.threshold, horizon, model, known.manifest, seeded(), mileage
    )
    here = min(last_moment(trips[0]), now) if trips else now
    return schemas.Forecast(
        **estimate_fields(vehicle, known),
        threshold=found.threshold,
        horizon=found.horizon,
        crossing_odometer=interval_item(found.odometer),
        crossing_date=_dates(found.days, here) if found.days else None,
        mileage=schemas.MileageItem(per_day=mileage.per_day, std=mileage.std, source=source)
        if mileage
        else None,
        already_below=found.is_below,
        below_share=found.below_share,
        never_share=found.never_share,
    )


def range_of(
    vehicle: Vehicle,
    known: Standing,
    model: VoltageModel,
    conditions: Mapping[str, float],
    consumption_per_km: float | None,
) -> schemas.Range:
    """What is left until the cut-off. Raises QuestionError, NoHealthError."""
    of_trip = with_trip_spread(known.estimate, known.manifest)
    found = remaining_until_cutoff(
        of_trip, conditions, model, known.manifest, seeded(), consumption_per_km
    )
    return schemas.Range(
        **estimate_fields(vehicle, known),
        remaining=interval_item(found.swept),
        remaining_distance=interval_item(found.distance_km) if found.distance_km else None,
        conditions=found.conditions,
        beyond_share=found.beyond_share,
        looked_at=found.looked_at,
    )


def planned_trip_of(
    vehicle: Vehicle,
    known: Standing,
    model: VoltageModel,
    rows: Sequence[schemas.PlannedRowItem],
) -> schemas.PlannedTrip:
    """The band along a plan, and whether the battery lasts. Raises QuestionError."""
    plan = [PlannedRow(row.signals, row.time_s) for row in rows]
    of_trip = with_trip_spread(known.estimate, known.manifest)
    found = plan_trip(of_trip, plan, model, known.manifest, seeded())
    columns = (found.voltage_v, found.std_v, found.low_v, found.high_v)
    return schemas.PlannedTrip(
        **estimate_fields(vehicle, known),
        cutoff_voltage_v=known.manifest.cutoff_voltage_v,
        arrives=found.arrives,
        arrival_probability=found.arrival_probability,
        mean_crosses=place_item(found.mean_crosses),
        band_crosses=place_item(found.band_crosses),
        rows=[
            schemas.PlannedVoltage(voltage_v=v, std_v=s, band95_lower_v=low, band95_upper_v=high)
            for v, s, low, high in zip(*(column.tolist() for column in columns), strict=True)
        ],
    )


def seeded() -> np.random.Generator:
    """What every answer draws from: the same question has the same answer."""
    return np.random.default_rng(SEED)


def _mileage(
    question: schemas.ForecastQuestion, trips: Sequence[Trip]
) -> tuple[Mileage | None, schemas.MileageSource]:
    if question.odometer_per_day is not None:
        return Mileage(question.odometer_per_day, question.odometer_per_day_std), "given"
    if question.odometer_per_day_std:
        raise QuestionError("odometer_per_day_std", "needs odometer_per_day beside it")
    return mileage_of(trips), "trips"


def _default_horizon(mileage: Mileage | None) -> float:
    if mileage is None:
        raise QuestionError("horizon", "needed while the vehicle's mileage is unknown")
    return min(DEFAULT_HORIZON_DAYS * mileage.per_day, MAX_ODOMETER)


def interval_item(found: Interval) -> schemas.IntervalItem:
    """As the API shows it."""
    return schemas.IntervalItem(**asdict(found))


def place_item(found: Place | None) -> schemas.PlaceItem | None:
    """As the API shows it."""
    return schemas.PlaceItem(**asdict(found)) if found else None


def _dates(days: Interval, here: float) -> schemas.DateItem:
    return schemas.DateItem(
        value=_date(days.value, here),
        low=_date(days.low, here),
        high=_date(days.high, here),
        std_days=days.std,
        level=days.level,
    )


def _date(days: float | None, here: float) -> datetime | None:
    if days is None:
        return None
    try:
        return datetime.fromtimestamp(here + days * DAY_S, UTC)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return None
