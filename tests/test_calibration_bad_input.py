"""Whatever a trace holds, the calibration ends sound, says why it refuses, and recovers.

The cloud decides and the vehicle judges, as they do in the loop, on a battery that has aged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import calibration
from common.bundle import Bundle
from common.calibration import Estimate, Settings
from common.calibrator import Case, MakeRevision, decide
from common.model import VoltageModel
from common.revision import decode_revision, encode_revision
from common.trace import TraceArrays
from edge_agent.parameters.decisions import KeptTrace, Verdict, judge
from tests.support_calibration import assert_sound
from tests.support_edge import aged_bundle, revision_for

FloatArray = npt.NDArray[np.float64]
Spoil = Callable[[TraceArrays], TraceArrays]
FEW = settings(max_examples=25)
GAIN = 1.2
ODOMETER = 60_000.0
NOISE_V = 0.01
GOOD_TRIPS = 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("aged"))


def trip(
    bundle: Bundle, gain: float, seed: int, points: int = 50, load_kg: float = 500.0
) -> TraceArrays:
    features = np.column_stack([np.linspace(0.0, 300.0, points), np.full(points, load_kg)])
    noise = np.random.default_rng(seed).normal(0.0, NOISE_V, points)
    voltage_v = VoltageModel(bundle).predict(features, [gain, 0.0]) + noise
    return TraceArrays(60.0 * np.arange(points), features, voltage_v)


@dataclass
class Loop:
    """Cloud and vehicle of one battery, without the wire."""

    bundle: Bundle
    estimate: Estimate
    odometer: float = 0.0
    failures: int = 0
    reasons: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = VoltageModel(self.bundle)

    def error_v(self, trace: TraceArrays) -> float:
        there = calibration.extrapolate(self.estimate, self.bundle.manifest, self.odometer)
        return calibration.aligned_error_v(there, trace, self.model, self.bundle.manifest)

    @property
    def threshold_v(self) -> float:
        return self.bundle.manifest.error_threshold_v

    def drive(self, trace: TraceArrays, odometer: float) -> None:
        """A breach is calibrated; the vehicle judges what comes, on the trace that it kept."""
        self.odometer = odometer
        if self.error_v(trace) <= self.threshold_v:
            return
        case = Case(trace, odometer, self.estimate, self.estimate, self.failures)
        (decision,) = decide([case], self.model, self.bundle.manifest, Settings())
        if not isinstance(decision, MakeRevision):
            assert 0 < len(decision.reason) <= 256
            self.reasons.append(decision.reason)
            self.failures += 1
            return
        found = decision.calibrated.estimate
        assert_sound(found, self.bundle.manifest)
        assert found.discrepancy is None or np.isfinite(found.discrepancy.std_v)
        verdict = self._judged(found, KeptTrace("m", odometer, trace))
        assert verdict.applied, verdict.detail
        assert verdict.revision is not None
        self.estimate, self.failures = calibration.estimate_of(verdict.revision), 0

    def _judged(self, found: Estimate, kept: KeptTrace) -> Verdict:
        own = found.discrepancy
        made = revision_for(
            self.bundle,
            odometer=found.odometer,
            theta=found.theta.tolist(),
            rate=found.rate.tolist(),
            covariance=calibration.upper_triangle(found.covariance),
            discrepancy_std_v=None if own is None else own.std_v,
            discrepancy_trips=0.0 if own is None else own.trips,
        )
        revision = decode_revision(encode_revision(made))
        authentic = Verdict("", revision=revision)
        return judge(authentic, 0, self.estimate, kept, self.model, self.bundle.manifest)


@pytest.fixture(scope="module")
def learned(bundle: Bundle) -> Estimate:
    """After 60,000 km on which the gain rose from 1 to 1.2, with a breach now and then."""
    loop = Loop(bundle, calibration.prior(bundle.manifest))
    for i in range(1, 61):
        share = i / 60.0
        loop.drive(trip(bundle, 1.0 + (GAIN - 1.0) * share, i), ODOMETER * share)
    assert loop.error_v(trip(bundle, GAIN, 99)) < loop.threshold_v
    return loop.estimate


def loop_of(bundle: Bundle, learned: Estimate, failures: int = 0) -> Loop:
    return Loop(bundle, learned, ODOMETER, failures)


def assert_recovers(loop: Loop, gain: float = GAIN) -> None:
    for i in range(GOOD_TRIPS):
        loop.drive(trip(loop.bundle, gain, 1000 + i), loop.odometer + 300.0)
        assert_sound(loop.estimate, loop.bundle.manifest)
    # Two trips that stayed just silent may be followed by one just above, by its own noise.
    assert loop.error_v(trip(loop.bundle, gain, 2000)) < 1.1 * loop.threshold_v


starts = st.integers(0, 48)
failures = st.integers(0, 3)


@st.composite
def stuck(draw: st.DrawFn) -> Spoil:
    since = draw(starts)
    at_v = draw(st.none() | st.floats(1.0, 5.0))

    def spoil(trace: TraceArrays) -> TraceArrays:
        voltage_v = trace.voltage_v.copy()
        voltage_v[since:] = voltage_v[since] if at_v is None else at_v
        return replace(trace, voltage_v=voltage_v)

    return spoil


@st.composite
def stepped(draw: st.DrawFn) -> Spoil:
    since, step_v = draw(starts), draw(st.floats(-2.0, 2.0))

    def spoil(trace: TraceArrays) -> TraceArrays:
        moved = trace.voltage_v + step_v * (np.arange(len(trace.time_s)) >= since)
        return replace(trace, voltage_v=np.clip(moved, 1.0, 5.0))

    return spoil


@st.composite
def with_gaps(draw: st.DrawFn) -> Spoil:
    kept = sorted(draw(st.sets(st.integers(0, 49), min_size=2, max_size=30)))

    def spoil(trace: TraceArrays) -> TraceArrays:
        return TraceArrays(trace.time_s[kept], trace.features[kept], trace.voltage_v[kept])

    return spoil


@st.composite
def late_clock(draw: st.DrawFn) -> Spoil:
    """The clock jumps, and the voltage belongs to features that lag behind by so many samples."""
    since, jump_s, lag = draw(starts), draw(st.floats(1.0, 1e9)), draw(st.integers(0, 20))

    def spoil(trace: TraceArrays) -> TraceArrays:
        behind = np.maximum(np.arange(len(trace.time_s)) - lag, 0)
        time_s = trace.time_s + jump_s * (np.arange(len(trace.time_s)) >= since)
        return replace(trace, time_s=time_s, voltage_v=trace.voltage_v[behind])

    return spoil


@st.composite
def arbitrary(draw: st.DrawFn) -> Spoil:
    voltages = draw(st.lists(st.floats(1.0, 5.0), min_size=2, max_size=50))

    def spoil(trace: TraceArrays) -> TraceArrays:
        rows = slice(len(voltages))
        return TraceArrays(trace.time_s[rows], trace.features[rows], np.array(voltages))

    return spoil


@FEW
@given(st.one_of(stuck(), stepped(), with_gaps(), late_clock()), failures)
def test_a_spoilt_trace_leaves_no_damage_that_two_good_trips_do_not_mend(
    bundle: Bundle, learned: Estimate, spoil: Spoil, failures: int
) -> None:
    loop = loop_of(bundle, learned, failures)
    loop.drive(spoil(trip(bundle, GAIN, 7)), ODOMETER + 300.0)
    assert_sound(loop.estimate, bundle.manifest)
    assert_recovers(loop)


@FEW
@given(arbitrary(), failures)
def test_arbitrary_voltages_leave_no_damage_that_two_good_trips_do_not_mend(
    bundle: Bundle, learned: Estimate, spoil: Spoil, failures: int
) -> None:
    loop = loop_of(bundle, learned, failures)
    loop.drive(spoil(trip(bundle, GAIN, 7)), ODOMETER + 300.0)
    assert_sound(loop.estimate, bundle.manifest)
    assert_recovers(loop)


@FEW
@given(st.lists(st.one_of(stuck(), stepped(), late_clock(), arbitrary()), min_size=3, max_size=6))
def test_many_spoilt_traces_in_a_row_leave_no_damage_that_two_good_trips_do_not_mend(
    bundle: Bundle, learned: Estimate, spoils: list[Spoil]
) -> None:
    loop = loop_of(bundle, learned)
    for i, spoil in enumerate(spoils):
        loop.drive(spoil(trip(bundle, GAIN, 7 + i)), ODOMETER + 300.0 * (i + 1))
        assert_sound(loop.estimate, bundle.manifest)
    assert_recovers(loop)


@FEW
@given(st.floats(0.6, 1.9), st.floats(0.0, 2000.0), st.integers(1, 3))
def test_another_cars_trips_leave_no_damage_that_two_good_trips_do_not_mend(
    bundle: Bundle, learned: Estimate, gain: float, load_kg: float, trips: int
) -> None:
    loop = loop_of(bundle, learned)
    for i in range(trips):
        loop.drive(trip(bundle, gain, 7 + i, load_kg=load_kg), ODOMETER + 300.0 * (i + 1))
        assert_sound(loop.estimate, bundle.manifest)
    assert_recovers(loop)


@FEW
@given(st.floats(0.85, 1.5), failures)
def test_a_replaced_pack_is_followed_within_two_trips(
    bundle: Bundle, learned: Estimate, gain: float, failures: int
) -> None:
    assert_recovers(loop_of(bundle, learned, failures), gain)


@FEW
@given(st.floats(3.0, 8.9).map(lambda power: 10.0**power))
def test_an_odometer_that_jumps_leaves_an_estimate_that_is_one(
    bundle: Bundle, learned: Estimate, ahead: float
) -> None:
    """Whether it was a sensor that lied: what comes after stands at no earlier odometer."""
    loop = loop_of(bundle, learned)
    loop.drive(trip(bundle, GAIN, 7), ODOMETER + ahead)
    assert_sound(loop.estimate, bundle.manifest)
    assert_recovers(loop)


@pytest.mark.parametrize("theta", [(2.0, -0.5), (0.5, 0.5), (2.0, 0.5), (1.2, 0.5)])
def test_a_battery_that_stands_at_a_bound_and_is_sure_of_it_is_found_again(
    bundle: Bundle, learned: Estimate, theta: tuple[float, float]
) -> None:
    """There theta hardly moves with the number that the filter moves."""
    sure = learned.covariance * 1e-6
    assert_recovers(loop_of(bundle, replace(learned, theta=np.array(theta), covariance=sure)))


def test_a_stuck_sensor_is_refused_with_its_cause(bundle: Bundle, learned: Estimate) -> None:
    loop = loop_of(bundle, learned)
    good = trip(bundle, GAIN, 7)
    loop.drive(replace(good, voltage_v=np.full(50, 3.9)), ODOMETER + 300.0)
    assert loop.estimate is learned
    assert "stuck at 3.9 V" in loop.reasons[0]


def test_a_large_step_is_refused_with_its_cause(bundle: Bundle, learned: Estimate) -> None:
    loop = loop_of(bundle, learned)
    good = trip(bundle, GAIN, 7)
    stepped_v = good.voltage_v + 1.0 * (np.arange(50) >= 25)
    loop.drive(replace(good, voltage_v=stepped_v), ODOMETER + 300.0)
    assert loop.estimate is learned
    assert "no parameters explain this trip" in loop.reasons[0]


def test_hundreds_of_float32_traces_leave_a_covariance(bundle: Bundle) -> None:
    """Every trip is calibrated, breach or not, on voltages rounded as a logger rounds them."""
    estimate, model = calibration.prior(bundle.manifest), VoltageModel(bundle)
    for i in range(300):
        trace = trip(bundle, 1.0 + 0.001 * i, i, points=30)
        rounded = replace(trace, voltage_v=trace.voltage_v.astype(np.float32).astype(float))
        (found,) = calibration.calibrate(
            [estimate], [rounded], [300.0 * i], model, bundle.manifest, Settings()
        )
        estimate = found.estimate
        assert_sound(estimate, bundle.manifest)
    assert estimate.theta[0] == pytest.approx(1.299, abs=0.03)
