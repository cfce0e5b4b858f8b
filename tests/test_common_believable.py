"""What no battery can be: limits of a signed revision's numbers, found by hostile input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from common import calibration
from common.believable import disbelief
from common.bundle import load_bundle
from common.estimate import Discrepancy, Estimate
from common.messages import Acknowledgement, decode, encode
from common.revision import decode_revision, encode_revision
from common.signing import sign
from edge_agent.parameters.decisions import Identity, authenticate
from edge_agent.timekeeping.stamps import Stamp
from edge_agent.trips.reports import acknowledgement
from tests.support_edge import KEY, START, TRUST, VEHICLE, aged_bundle, revision_for

FLEET = Path(__file__).parent / "data" / "fleet_bundle"


def with_covariance(row: int, column: int, value: float) -> Any:
    def changed(estimate: Estimate) -> Estimate:
        covariance = estimate.covariance.copy()
        covariance[row, column] = covariance[column, row] = value
        return replace(estimate, covariance=covariance)

    return changed


ABSURD = {
    "a variance of 1e30": with_covariance(0, 0, 1e30),
    "a variance of 1e-320": with_covariance(1, 1, 1e-320),
    "a negative variance": with_covariance(0, 0, -1.0),
    "a covariance with a rate that the filter leaves out": with_covariance(0, 3, 2.0**64),
    "a rate of 1e30": lambda e: replace(e, rate=np.array([1e30, 0.0])),
    "a discrepancy of 1e308 V": lambda e: replace(e, discrepancy=Discrepancy(1.7e308, 3.0)),
}


@pytest.mark.parametrize("how", ABSURD)
def test_signed_or_not_absurd_numbers_are_refused(how: str, tmp_path: Path) -> None:
    bundle = aged_bundle(tmp_path / "bundle")
    estimate = ABSURD[how](calibration.prior(bundle.manifest))
    assert disbelief(estimate, bundle.manifest)
    own = estimate.discrepancy
    made = revision_for(
        bundle,
        rate=estimate.rate.tolist(),
        covariance=calibration.upper_triangle(estimate.covariance),
        discrepancy_std_v=own.std_v if own else None,
    )
    who = Identity(VEHICLE, bundle.sha256, bundle.manifest, TRUST)
    found = authenticate(sign(encode_revision(made), KEY), who)
    assert found.reason in {"out_of_bounds", "malformed"}
    answer = acknowledgement(found, 1, who, Stamp(1, 1.0, START, is_known=True))
    assert decode(encode(answer), Acknowledgement) == answer


def test_the_manifests_prior_is_believed_and_so_is_it_reopened() -> None:
    manifest = load_bundle(FLEET).manifest
    prior = calibration.prior(manifest)
    for opened in (1.0, 5.0, 1e-4):
        estimate = replace(prior, covariance=prior.covariance * opened**2)
        assert disbelief(estimate, manifest) is None


def test_a_number_that_no_acknowledgement_can_name_is_no_revision(tmp_path: Path) -> None:
    bundle = aged_bundle(tmp_path / "bundle")
    last = revision_for(bundle, number=10**9)
    assert decode_revision(encode_revision(last)) == last
    who = Identity(VEHICLE, bundle.sha256, bundle.manifest, TRUST)
    beyond = msgspec.structs.replace(last, number=10**9 + 1)
    found = authenticate(sign(encode_revision(beyond), KEY), who)
    assert (found.reason, found.number) == ("malformed", None)
