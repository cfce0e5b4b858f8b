"""What the command line shows of quantities derived from a vehicle's estimate.

Must never write to the database. Each function is False when there is nothing to answer for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from cloud.api import derived_schemas as schemas
from cloud.api import derived_views, views
from cloud.bundles import Catalogue, load_catalogue
from cloud.commands.console import wide_console
from cloud.commands.reports import show
from cloud.config import Config, load_config
from cloud.mileage import MOST_TRIPS
from cloud.store import pages
from cloud.store.database import Reader
from cloud.store.tables import Trip, Vehicle
from common.errors import QuestionError
from common.model import VoltageModel

Question = TypeVar("Question", bound=BaseModel)


@dataclass(frozen=True)
class _Asked:
    """The vehicle that a command asks about, as the service's database has it."""

    vehicle: Vehicle
    known: views.Standing
    model: VoltageModel
    trips: list[Trip]
    now: float


def health(config: Path, vehicle_id: str, odometer: float | None, *, as_json: bool) -> bool:
    """Print state of health. Raises TwinError."""
    wanted = _question(schemas.HealthQuestion, {"odometer": odometer})
    with _asked(config, vehicle_id, wanted.odometer) as asked:
        if asked is not None:
            found = derived_views.health_of(asked.vehicle, asked.known, asked.model)
            _show(found, as_json=as_json)
        return asked is not None


def forecast(config: Path, vehicle_id: str, question: Mapping[str, Any], *, as_json: bool) -> bool:
    """Print when health falls to a threshold. Raises TwinError."""
    wanted = _question(schemas.ForecastQuestion, question)
    with _asked(config, vehicle_id) as asked:
        if asked is not None:
            found = derived_views.forecast_of(
                asked.vehicle, asked.known, asked.model, asked.trips, asked.now, wanted
            )
            _show(found, as_json=as_json)
        return asked is not None


def remaining(config: Path, vehicle_id: str, question: Mapping[str, Any], *, as_json: bool) -> bool:
    """Print what is left until the cut-off. Raises TwinError."""
    wanted = _question(schemas.RangeRequest, question)
    with _asked(config, vehicle_id, wanted.odometer) as asked:
        if asked is not None:
            found = derived_views.range_of(
                asked.vehicle,
                asked.known,
                asked.model,
                wanted.conditions,
                wanted.consumption_per_km,
            )
            _show(found, as_json=as_json)
        return asked is not None


def planned_trip(config: Path, vehicle_id: str, trip: Path, *, as_json: bool) -> bool:
    """Print the outcome of a planned trip. Raises TwinError."""
    wanted = _question(schemas.PlannedTripRequest, _content(trip))
    with _asked(config, vehicle_id, wanted.odometer) as asked:
        if asked is not None:
            found = derived_views.planned_trip_of(
                asked.vehicle, asked.known, asked.model, wanted.rows
            )
            _show(found, as_json=as_json)
        return asked is not None


@contextmanager
def _asked(
    config_path: Path, vehicle_id: str, odometer: float | None = None
) -> Iterator[_Asked | None]:
    config: Config = load_config(config_path)
    catalogue: Catalogue = load_catalogue([config.path(name) for name in config.bundles.paths])
    store = Reader(config.database())
    now = time.time()
    try:
        with store.read() as db:
            vehicle = db.get(Vehicle, vehicle_id)
            known = views.standing(db, vehicle, catalogue, now, odometer) if vehicle else None
            trips = list(pages.trips(db, None, MOST_TRIPS, vehicle_id=vehicle_id))
    finally:
        store.close()
    if vehicle is None or known is None:
        yield None
    else:
        yield _Asked(vehicle, known, catalogue.model(known.bundle), trips, now)


def _content(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.MsgspecError) as error:
        raise QuestionError(str(path), str(error)) from error


def _question(kind: type[Question], content: Any) -> Question:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or kind.__name__
        raise QuestionError(where, first["msg"]) from error


def _show(found: BaseModel, *, as_json: bool) -> None:
    """One line a quantity; what is a list is for --json."""
    content = found.model_dump(mode="json")
    if as_json:
        text = msgspec.json.format(msgspec.json.encode(content), indent=2).decode()
        wide_console().out(text, highlight=False)
        return
    plain = {name: value for name, value in content.items() if not isinstance(value, list)}
    rows = [
        {"quantity": name, **value}
        if isinstance(value, dict) and "value" in value
        else {"quantity": name, "value": value}
        for name, value in plain.items()
    ]
    show(rows, ["quantity", "value", "std", "low", "high", "unit"], as_json=False)
