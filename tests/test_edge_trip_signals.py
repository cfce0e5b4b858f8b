"""What a trip makes of the car's signals, against sums over the whole trip at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import Derived, Source, load_config
from edge_agent.errors import ConfigError
from edge_agent.samples import Sample
from edge_agent.sources import signal_names
from edge_agent.trips.trip_signals import TripSignals
from tests.support_edge import START, manifest_of

FloatArray = npt.NDArray[np.float64]

DERIVED = {
    "distance_km": Derived("odometer"),
    "average_speed_m_s": Derived("mean", "speed"),
    "discharged_ah": Derived("integral", "current", 1 / 3600),
    "start_soc": Derived("first", "soc"),
}


def area(values: FloatArray, time_s: FloatArray) -> float:
    return float(np.sum(0.5 * np.diff(time_s) * (values[1:] + values[:-1])))


def samples(rows: list[tuple[float, float, float]]) -> list[Sample]:
    time_s, odometer, found = START, 1000.0, []
    for dt, speed, current in rows:
        time_s, odometer = time_s + dt, odometer + speed * dt / 1000.0
        found.append(
            Sample(time_s, odometer, {"speed": speed, "current": current, "soc": 100 - dt}, 4.0)
        )
    return found


drives = st.lists(
    st.tuples(st.floats(0.1, 60.0), st.floats(0.0, 50.0), st.floats(-100.0, 100.0)),
    min_size=2,
    max_size=30,
).map(samples)


def driven(signals: TripSignals, drive: list[Sample]) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in drive:
        found = signals.candidate(sample)
        signals.take(sample)
    return found


@given(drives)
def test_derived_signals_are_the_sums_over_the_trip(drive: list[Sample]) -> None:
    found = driven(TripSignals(DERIVED), drive)
    time_s = np.array([s.time_s for s in drive])
    speed = np.array([s.signals["speed"] for s in drive])
    current = np.array([s.signals["current"] for s in drive])
    assert found["distance_km"] == pytest.approx(drive[-1].odometer - drive[0].odometer)
    elapsed_s = time_s[-1] - time_s[0]
    assert found["average_speed_m_s"] == pytest.approx(area(speed, time_s) / elapsed_s)
    assert found["discharged_ah"] == pytest.approx(area(current, time_s) / 3600, abs=1e-9)
    assert found["start_soc"] == drive[0].signals["soc"]


@given(drives, st.integers(0, 29))
def test_a_trip_that_was_saved_and_restored_goes_on_as_if_nothing_had_happened(
    drive: list[Sample], cut: int
) -> None:
    before, after = TripSignals(DERIVED), TripSignals(DERIVED)
    driven(before, drive[:cut])
    after.restore(before.saved())
    rest = drive[cut:] or drive[-1:]
    assert driven(after, rest) == driven(before, rest)


def test_a_sample_that_was_refused_leaves_no_mark() -> None:
    signals = TripSignals(DERIVED)
    drive = samples([(1, 10, 5), (1, 20, 5)])
    signals.take(drive[0])
    kept = signals.saved()
    signals.candidate(drive[1])
    assert signals.saved() == kept


def test_what_is_missing_stays_missing() -> None:
    found = TripSignals(DERIVED).candidate(Sample(START, 1.0, {"speed": 3.0}, 4.0))
    assert found == {"speed": 3.0, "distance_km": 0.0, "average_speed_m_s": 3.0}


def test_numbers_of_other_derived_signals_are_refused() -> None:
    signals = TripSignals(DERIVED)
    signals.take(samples([(1, 10, 5)])[0])
    with pytest.raises(ValueError, match="other derived signals"):
        TripSignals({"distance_km": Derived("odometer")}).restore(signals.saved())


def test_the_car_must_give_what_is_derived_from_and_not_what_is_derived() -> None:
    source = Source(
        derived={"distance_km": Derived("odometer"), "load_kg": Derived("mean", "axle")}
    )
    assert signal_names(manifest_of(b""), source, ("current_a",)) == ["axle", "current_a"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('x = { how = "odometer", of = "y" }', "is the way itself"),
        ('x = { how = "mean" }', "is the mean of which signal"),
        ('x = { how = "mean", of = "y" }\ny = { how = "odometer" }', "is derived itself"),
        ('x = { how = "median", of = "y" }', "median"),
    ],
)
def test_what_cannot_be_derived_is_a_config_error(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "agent.toml"
    minimal = 'vehicle_id = "c"\nbundle = "b"\nstate = "s"\ntrusted_keys = ["k"]\n'
    path.write_text(f"{minimal}[source.derived]\n{text}\n")
    with pytest.raises(ConfigError, match=problem):
        load_config(path)
