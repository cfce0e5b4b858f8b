"""Standard drive cycles: speed against time, second by second.

The NEDC is built from the segments of UN ECE Regulation 83, Annex 4a (Type I test); the other
cycles are the tables of their regulations, shipped in `cycles/`. Reads those files and nothing
else; must never invent a speed.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

M_S_PER_KMH: Final = 1.0 / 3.6
M_S_PER_MPH: Final = 0.44704

# (seconds, speed in km/h at their end); the speed changes evenly within a segment.
URBAN: Final = (
    *((11, 0), (4, 15), (8, 15), (2, 10), (3, 0)),
    *((21, 0), (5, 15), (2, 15), (5, 32), (24, 32), (8, 10), (3, 0)),
    *((21, 0), (5, 15), (2, 15), (9, 35), (2, 35), (8, 50), (12, 50)),
    *((8, 35), (13, 35), (2, 32), (7, 10), (3, 0), (7, 0)),
)
EXTRA_URBAN: Final = (
    *((20, 0), (5, 15), (2, 15), (9, 35), (2, 35), (8, 50), (2, 50), (13, 70), (50, 70)),
    *((8, 50), (69, 50), (13, 70), (50, 70), (35, 100), (30, 100), (20, 120), (10, 120)),
    *((16, 80), (8, 50), (10, 0), (20, 0)),
)
TABLES: Final = {
    "udds": ("udds_mph.txt", M_S_PER_MPH),
    "hwfet": ("hwfet_mph.txt", M_S_PER_MPH),
    "us06": ("us06_mph.txt", M_S_PER_MPH),
    "wltc": ("wltc_class_3b_kmh.txt", M_S_PER_KMH),
}
CYCLES: Final = ("nedc", *TABLES)


@cache
def speed_m_s(cycle: str) -> FloatArray:
    """Speed at each full second of a cycle of CYCLES, from standstill to standstill, [seconds+1].

    Read-only: everybody shares it. Raises KeyError for another name.
    """
    if cycle == "nedc":
        speed = _from_segments((*URBAN, *URBAN, *URBAN, *URBAN, *EXTRA_URBAN)) * M_S_PER_KMH
    else:
        name, unit_m_s = TABLES[cycle]
        text = files("firmware_sim").joinpath("cycles", name).read_text(encoding="ascii")
        speed = np.array(text.split(), dtype=np.float64) * unit_m_s
    speed.setflags(write=False)
    return speed


def distance_m(speed: FloatArray) -> float:
    """Distance of a speed trace of one value a second, which changes evenly in between, m."""
    return float((0.5 * (speed[1:] + speed[:-1])).sum())


def _from_segments(segments: tuple[tuple[int, int], ...]) -> FloatArray:
    ends_s = np.cumsum([0, *(seconds for seconds, _ in segments)])
    speeds = [0, *(speed for _, speed in segments)]
    return np.interp(np.arange(ends_s[-1] + 1), ends_s, speeds)
