"""What a manifest declares, as arrays: built once for each manifest, not at every call.

Pure values. Must never hold anything that the manifest does not say.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from common.ageing import AgeingLaw, law_of
from common.bounds import Bounds
from common.manifest import Manifest

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

CACHED_MANIFESTS: Final = 64


@dataclass(frozen=True)
class Layout:
    """Of P parameters: bounds, law of ageing, variances [P] by trip and by point.

    `active` [n] are the indices into (theta, rate) of what the filter estimates: all theta, and
    the declared rates; `active_square` is the grid of them.
    """

    count: int
    bounds: Bounds
    law: AgeingLaw
    trip_variances: FloatArray
    point_variances: FloatArray
    has_trip_spread: bool
    active: IntArray
    active_square: tuple[IntArray, IntArray]


def layout_of(manifest: Manifest) -> Layout:
    """The manifest's arrays."""
    return _layout(_Same(manifest))


class _Same:
    """The very manifest as a key: it is frozen, but lists cannot be hashed."""

    __slots__ = ("manifest",)

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def __hash__(self) -> int:
        return id(self.manifest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.manifest is other.manifest


@lru_cache(maxsize=CACHED_MANIFESTS)
def _layout(key: _Same) -> Layout:
    manifest = key.manifest
    parameters = manifest.parameters
    count = len(parameters)
    rates = [count + i for i, p in enumerate(parameters) if p.rate_prior_std > 0]
    active = np.array([*range(count), *rates], dtype=np.intp)
    return Layout(
        count=count,
        bounds=Bounds.between(
            np.array([p.lower for p in parameters]), np.array([p.upper for p in parameters])
        ),
        law=law_of(manifest),
        trip_variances=np.array([p.trip_std**2 for p in parameters]),
        point_variances=np.array([p.point_std**2 for p in parameters]),
        has_trip_spread=any(p.trip_std > 0 for p in parameters),
        active=active,
        active_square=(active[:, None], active),
    )
