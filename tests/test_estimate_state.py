"""The state of an estimate: learning, known, stale, doubtful; without flicker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.estimate_state import Evidence, State, judge, relative_std

GOOD = Evidence(trips=20, calibrations=5, relative_std=0.2, error_left=0.3, last_trip_age_s=3600.0)
DAY = 86400.0
STATES: tuple[State, ...] = ("learning", "known", "stale", "doubtful")


@pytest.mark.parametrize(
    ("previous", "evidence", "state"),
    [
        ("learning", GOOD, "known"),
        ("learning", replace(GOOD, calibrations=0, error_left=None), "learning"),
        ("learning", replace(GOOD, trips=2), "learning"),
        ("learning", replace(GOOD, relative_std=0.6), "learning"),
        ("known", replace(GOOD, relative_std=0.6), "known"),
        ("known", replace(GOOD, relative_std=0.8), "learning"),
        ("known", replace(GOOD, error_left=0.9), "known"),
        ("known", replace(GOOD, error_left=1.1), "doubtful"),
        ("doubtful", replace(GOOD, error_left=0.9), "doubtful"),
        ("doubtful", replace(GOOD, error_left=0.79), "known"),
        ("known", replace(GOOD, failures=3), "doubtful"),
        ("known", replace(GOOD, last_trip_age_s=20 * DAY), "known"),
        ("known", replace(GOOD, last_trip_age_s=31 * DAY), "stale"),
        ("stale", replace(GOOD, last_trip_age_s=20 * DAY), "stale"),
        ("stale", replace(GOOD, last_trip_age_s=DAY), "known"),
        ("known", replace(GOOD, error_left=1.1, last_trip_age_s=31 * DAY), "doubtful"),
        ("known", replace(GOOD, last_trip_age_s=None), "known"),
    ],
)
def test_the_state_follows_the_evidence_and_what_it_was(
    previous: State, evidence: Evidence, state: State
) -> None:
    assert judge(previous, evidence).state == state


EVIDENCE = st.builds(
    Evidence,
    trips=st.integers(0, 10),
    calibrations=st.integers(0, 5),
    relative_std=st.floats(0.0, 2.0),
    error_left=st.none() | st.floats(0.0, 3.0),
    failures=st.integers(0, 5),
    last_trip_age_s=st.none() | st.floats(0.0, 60 * DAY),
)


@given(st.sampled_from(STATES), EVIDENCE)
def test_the_same_evidence_twice_never_changes_the_state_back(
    previous: State, evidence: Evidence
) -> None:
    once = judge(previous, evidence)
    assert judge(once.state, evidence) == once


@given(st.sampled_from(STATES), EVIDENCE)
def test_every_state_but_known_says_why(previous: State, evidence: Evidence) -> None:
    judgement = judge(previous, evidence)
    assert (judgement.reason is None) == (judgement.state == "known")


@given(st.lists(st.floats(0.51, 0.69), min_size=2))
def test_an_uncertainty_between_the_limits_does_not_flicker(values: list[float]) -> None:
    state: State = "known"
    for value in values:
        state = judge(state, replace(GOOD, relative_std=value)).state
        assert state == "known"


def test_the_relative_uncertainty_is_the_geometric_mean_over_the_parameters() -> None:
    covariance = np.diag([0.01, 4.0, 99.0, 99.0])
    assert relative_std(covariance, np.array([0.2, 1.0])) == pytest.approx(1.0)
    assert relative_std(np.zeros((4, 4)), np.array([0.2, 1.0])) < 1e-9
