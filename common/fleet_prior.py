"""The fleet's prior: how batteries of one bundle age, and how much they differ.

A vehicle starts from it instead of from the manifest, and takes the growth of its ageing rates from
it. An age is in odometer units since the battery was new, whatever car it is in. Pure. Must never
hold anything of a single vehicle.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

import msgspec
import numpy as np
import numpy.typing as npt

from common.batch import extrapolate
from common.errors import MalformedMessageError
from common.estimate import Discrepancy, Estimate, symmetric
from common.json_document import decode_document
from common.manifest import Manifest
from common.messages import Believable, Digest, Growth, NonNegative, Odometer, States, UnixTime

PRIOR_SCHEMA: Final = 1
MOST_NODES: Final = 12

FloatArray = npt.NDArray[np.float64]
Version = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class FleetPrior(msgspec.Struct, frozen=True, kw_only=True):
    """What a battery is expected to be at each of K ages (`odometers`), before it is known.

    `theta` [K][P] and `rate` [K][P] are means over the vehicles, `covariance` [K] the upper
    triangle over (theta, rate) of what a further vehicle may differ by, `growth` [K][P] that of the
    rate per odometer unit. Between the nodes all of it is interpolated.
    """

    schema: int = PRIOR_SCHEMA
    bundle: Digest
    version: Version
    made_at: UnixTime
    vehicles: Annotated[int, msgspec.Meta(ge=1)]
    revisions: Annotated[int, msgspec.Meta(ge=1)]
    parameters: list[str]
    odometers: Annotated[list[Odometer], msgspec.Meta(min_length=2, max_length=MOST_NODES)]
    theta: list[States]
    rate: list[States]
    covariance: list[Annotated[list[Believable], msgspec.Meta(max_length=2080)]]
    growth: list[Annotated[list[Growth], msgspec.Meta(max_length=32)]]
    discrepancy_std_v: NonNegative | None = None


def encode_prior(prior: FleetPrior) -> bytes:
    """Canonical, human-readable bytes; the same prior gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(prior), indent=2) + b"\n"


def decode_prior(content: bytes) -> FleetPrior:
    """Parse and check the bytes. Raises UnknownSchemaError, MalformedMessageError."""
    prior = decode_document(content, FleetPrior, PRIOR_SCHEMA)
    problem = _problem(prior)
    if problem:
        raise MalformedMessageError("FleetPrior", problem)
    return prior


def prior_hash(content: bytes) -> str:
    """SHA-256 of the canonical bytes."""
    return hashlib.sha256(content).hexdigest()


def reaches(prior: FleetPrior, age: float) -> bool:
    """Whether the fleet says anything of a battery so young; an older one is extrapolated."""
    return age >= prior.odometers[0]


def start(prior: FleetPrior, manifest: Manifest, age: float) -> Estimate:
    """The estimate of a battery of that age of which nothing else is known; `reaches` holds.

    Beyond the last node the ageing law carries it on (common.estimate). A rate that the manifest
    leaves out of the state stays out.
    """
    at = min(age, prior.odometers[-1])
    std_v = prior.discrepancy_std_v
    rated = np.array([parameter.rate_prior_std > 0 for parameter in manifest.parameters])
    in_state = np.concatenate([np.ones(len(rated)), rated])
    known = Estimate(
        theta=_inside(_interpolated(prior, prior.theta, at), manifest),
        rate=_interpolated(prior, prior.rate, at) * rated,
        covariance=_covariance(prior, at) * in_state[:, None] * in_state,
        odometer=at,
        growth=growth_at(prior, at),
        discrepancy=None if std_v is None else Discrepancy(std_v, 0.0),
    )
    return extrapolate(known, manifest, age)


def growth_at(prior: FleetPrior, age: float) -> FloatArray:
    """The growth [P] of the ageing rates, per odometer unit, of a battery of that age."""
    return _interpolated(prior, prior.growth, age)


def standard_deviations(prior: FleetPrior) -> FloatArray:
    """What a further vehicle may differ by, [K, 2P] over (theta, rate)."""
    return np.stack([np.sqrt(np.diag(_covariance(prior, s))) for s in prior.odometers])


def _inside(theta: FloatArray, manifest: Manifest) -> FloatArray:
    """A mean beside the bounds is no start for a filter that lives inside them."""
    margin = 1e-6 * np.array([p.upper - p.lower for p in manifest.parameters])
    lower = np.array([p.lower for p in manifest.parameters]) + margin
    upper = np.array([p.upper for p in manifest.parameters]) - margin
    return np.clip(theta, lower, upper)


def _interpolated(prior: FleetPrior, rows: list[list[float]], age: float) -> FloatArray:
    columns = np.array(rows).T
    return np.array([np.interp(age, prior.odometers, column) for column in columns])


def _covariance(prior: FleetPrior, age: float) -> FloatArray:
    """A mixture of two positive definite matrices is one, too."""
    return symmetric(2 * len(prior.parameters), _interpolated(prior, prior.covariance, age))


def _problem(prior: FleetPrior) -> str | None:
    nodes, count = len(prior.odometers), len(prior.parameters)
    if any(b <= a for a, b in zip(prior.odometers, prior.odometers[1:], strict=False)):
        return "odometers must increase"
    rows = {"theta": prior.theta, "rate": prior.rate, "growth": prior.growth}
    for name, table in rows.items():
        if len(table) != nodes or any(len(row) != count for row in table):
            return f"{name} does not fit odometers and parameters"
    triangle = count * (2 * count + 1)
    if len(prior.covariance) != nodes or any(len(row) != triangle for row in prior.covariance):
        return "covariance does not fit odometers and parameters"
    return None
