"""Make demo/data from the full measured data: python tools/thin_measured_data.py SOURCE DEST.

Cells: every second point of each discharge, both ends kept. Car: every second row, and only the
columns that the demonstration reads. Must never change a number that it keeps.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pandas as pd

CAR_COLUMNS = [
    "trip_id", "time_s", "battery_voltage_v", "battery_current_a", "soc_percent", "distance_km",
]  # fmt: skip
TRIP_COLUMNS = [
    "trip_id", "started_at", "area", "weather", "ambient_temperature_c", "distance_km",
    "duration_s",
]  # fmt: skip


def main() -> None:
    """Thin SOURCE into DEST, the two arguments."""
    source, dest = map(Path, sys.argv[1:3])
    for path in sorted((source / "calce_cs2").glob("*.csv.gz")):
        _write(_thin(pd.read_csv(path), "cycle"), dest / "calce_cs2" / path.name)
    samples = pd.read_csv(source / "bmw_i3" / "samples.csv.gz")[CAR_COLUMNS]
    _write(_thin(samples, "trip_id"), dest / "bmw_i3" / "samples.csv.gz")
    trips = pd.read_csv(source / "bmw_i3" / "trips.csv")[TRIP_COLUMNS]
    trips.to_csv(dest / "bmw_i3" / "trips.csv", index=False)


def _thin(table: pd.DataFrame, by: str) -> pd.DataFrame:
    place = table.groupby(by, sort=False).cumcount()
    last = ~table.duplicated(by, keep="last")
    return table[(place % 2 == 0) | last]


def _write(table: pd.DataFrame, path: Path) -> None:
    """The same bytes each time: no date in the gzip header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = table.to_csv(index=False).encode()
    with path.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(text)


if __name__ == "__main__":
    main()
