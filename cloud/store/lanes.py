"""Lanes: every vehicle is in one of a fixed number, and one lane is worked on by one at a time.

So trips of a vehicle are calibrated one at a time whatever the number of workers, and what waits
for a worker is at most one entry a lane, not one a breach. Must never change: stored rows carry it.
"""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

from sqlalchemy import Connection, text

LANES: Final = 64
"""How many workers can be busy at one time; more lanes are more, and smaller, rounds."""


def lane_of(vehicle_id: str) -> int:
    """The lane of a vehicle, from 0 to LANES - 1."""
    return crc32(vehicle_id.encode()) % LANES


def lane_of_row(context: Any) -> int:
    """The default of a column `lane`, for tables that have a `vehicle_id`."""
    return lane_of(context.get_current_parameters()["vehicle_id"])


def fill(connection: Connection) -> None:
    """Give rows of an older version their lanes; of breaches only those that wait need any."""
    known = connection.scalars(text("SELECT vehicle_id FROM vehicle")).all()
    rows = [{"vehicle": vehicle_id, "lane": lane_of(vehicle_id)} for vehicle_id in known]
    if not rows:
        return
    connection.execute(text("UPDATE vehicle SET lane = :lane WHERE vehicle_id = :vehicle"), rows)
    connection.execute(
        text("UPDATE breach SET lane = :lane WHERE vehicle_id = :vehicle AND state = 'pending'"),
        rows,
    )
