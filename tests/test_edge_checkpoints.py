"""A running trip on disk: what a restart continues, what it closes as partial, what it drops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.bundle import Bundle
from common.messages import Breach, TripSummary, decode
from edge_agent.samples import Sample
from edge_agent.storage import kept
from edge_agent.trips import trip_state
from edge_agent.trips.checkpoints import continues
from edge_agent.trips.trip_record import BUCKETS
from tests.support_edge import START, Rig, aged_bundle, drive, revision_for, signed

COUNT = 400  # no faster than a car may be


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def rig(tmp_path: Path, bundle: Bundle) -> Iterator[Rig]:
    made = Rig(tmp_path / "state.db", bundle)
    made.agent.driving.keep_trips()
    yield made
    made.state.close()


def take(rig: Rig, samples: list[Sample], *, every_s: float = 60.0) -> None:
    for sample in samples:
        rig.agent.take(sample)
        rig.clock.now += every_s


def killed(rig: Rig) -> None:
    """What was not on disk is gone; the next agent begins."""
    rig.reopen()
    rig.agent.driving.keep_trips()


def reported(rig: Rig) -> list[TripSummary]:
    found = rig.state.connection.execute("SELECT payload FROM outbox WHERE kind = 'trip'")
    return [decode(row[0], TripSummary) for row in found]


def counters(rig: Rig) -> dict[str, int]:
    return kept.counters(rig.state.connection)


def samples_of(bundle: Bundle, **options: Any) -> list[Sample]:
    return list(drive(bundle, count=COUNT, **options))


def test_a_trip_that_was_killed_in_its_middle_goes_on_where_it_was_written_down(
    rig: Rig, bundle: Bundle
) -> None:
    trip = samples_of(bundle)
    take(rig, trip[:200])
    killed(rig)
    take(rig, trip[200:])
    rig.agent.driving.end_trip()
    (summary,) = reported(rig)
    assert summary.partial is False
    assert summary.samples == COUNT
    assert summary.started_at == trip[0].time_s
    assert summary.odometer_start == trip[0].odometer
    assert counters(rig) == {"trips_continued": 1}
    assert kept.running_trip(rig.state.connection) is None


@pytest.mark.parametrize("cut", [2, 57, 399])
def test_the_result_is_that_of_a_trip_that_was_never_cut(
    tmp_path: Path, bundle: Bundle, cut: int
) -> None:
    results: list[Breach] = []
    for number in range(2):
        made = Rig(tmp_path / f"{number}.db", bundle)
        made.agent.driving.keep_trips()
        trip = samples_of(bundle)
        take(made, trip[:cut])
        if number:
            killed(made)
        take(made, trip[cut:])
        made.agent.driving.end_trip()
        whole = made.state.connection.execute("SELECT payload FROM outbox WHERE kind = 'breach'")
        results.append(decode(whole.fetchone()[0], Breach))
        made.state.close()
    whole_trip, continued = results
    assert continued.error_v == whole_trip.error_v
    assert continued.message_id == whole_trip.message_id
    assert continued.trace.time_s[0] == whole_trip.trace.time_s[0]
    assert continued.trace.time_s[-1] == whole_trip.trace.time_s[-1]


def test_the_parameters_of_the_trips_beginning_stay_in_force_after_the_restart(
    rig: Rig, bundle: Bundle
) -> None:
    trip = samples_of(bundle)
    take(rig, trip[:200])
    rig.agent._receive("twin/v1/car-1/parameters", signed(revision_for(bundle)))
    assert rig.agent.twin.revision == 1
    killed(rig)
    take(rig, trip[200:])
    rig.agent.driving.end_trip()
    (summary,) = reported(rig)
    assert summary.revision == 0
    assert summary.error_v > bundle.manifest.error_threshold_v  # with the revision: far below


def test_between_two_writes_the_disk_is_left_alone(rig: Rig, bundle: Bundle) -> None:
    before = rig.state.connection.total_changes
    take(rig, samples_of(bundle)[:59], every_s=1.0)
    assert rig.state.connection.total_changes == before
    take(rig, samples_of(bundle)[59:61], every_s=1.0)
    assert rig.state.connection.total_changes == before + 1


def test_a_checkpoint_is_small_whatever_the_trips_length(bundle: Bundle, rig: Rig) -> None:
    long = [
        replace(sample, time_s=START + i, odometer=1000.0 + i / 100, trip_id="long")
        for i, sample in enumerate(drive(bundle, count=3 * BUCKETS))
    ]
    sizes = []
    for part in (long[:200], long[200:]):
        take(rig, part, every_s=1.0)
        rig.agent.driving.leave_trip()
        sizes.append(len(kept.running_trip(rig.state.connection) or b""))
    assert 0 < sizes[0] < 8192
    assert 0 < sizes[1] < 8192


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"time_s": START + 199 * 60 + 301}, "301 s after"),
        ({"time_s": START + 10}, "s after the last one"),
        ({"odometer": 1000.0}, "its odometer is lower"),
        ({"odometer": 1300.0}, "further"),
        ({"trip_id": "trip-2"}, "the next one has begun"),
        ({"trip_id": None, "ignition": False}, "switched off"),
    ],
)
def test_what_cannot_be_the_same_trip_closes_it_as_partial(
    rig: Rig, bundle: Bundle, changes: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    trip = samples_of(bundle)
    take(rig, trip[:200])
    killed(rig)
    with caplog.at_level("WARNING"):
        rig.agent.take(replace(trip[200], **changes))
    (summary,) = reported(rig)
    assert (summary.trip_id, summary.samples, summary.partial) == ("trip-1", 200, True)
    assert counters(rig)["partial_trips"] == 1
    assert why in caplog.text


def test_a_partial_trip_may_breach(rig: Rig, bundle: Bundle) -> None:
    trip = samples_of(bundle)
    take(rig, trip[:300])
    killed(rig)
    rig.agent.take(replace(trip[300], trip_id="trip-2"))
    assert reported(rig)[0].partial
    assert reported(rig)[0].breach
    assert kept.awaiting(rig.state.connection)


def test_a_car_that_stays_silent_after_the_restart_has_ended_its_trip(
    rig: Rig, bundle: Bundle
) -> None:
    take(rig, [replace(sample, trip_id=None) for sample in samples_of(bundle)[:200]])
    killed(rig)
    rig.agent.driving.end_silent_trip(299.0)
    assert reported(rig) == []
    rig.agent.driving.end_silent_trip(301.0)
    (summary,) = reported(rig)
    assert summary.partial


def test_a_stop_before_anything_more_came_leaves_the_trip_on_disk(rig: Rig, bundle: Bundle) -> None:
    trip = samples_of(bundle)
    take(rig, trip[:200])
    killed(rig)
    rig.agent.driving.leave_trip()
    killed(rig)
    take(rig, trip[200:202])
    rig.agent.driving.end_trip()
    assert [(one.samples, one.partial) for one in reported(rig)] == [(202, False)]


def test_a_trip_that_was_reported_is_not_begun_again(rig: Rig, bundle: Bundle) -> None:
    take(rig, samples_of(bundle)[:200])
    saved = kept.running_trip(rig.state.connection)
    assert saved is not None
    rig.agent.driving.end_trip()
    with rig.state.transaction() as db:
        kept.save_running_trip(db, "trip-1", saved)
    killed(rig)
    rig.agent.driving.end_trip()
    assert len(reported(rig)) == 1
    assert kept.running_trip(rig.state.connection) is None


def test_a_trip_too_short_to_report_leaves_no_checkpoint(rig: Rig, bundle: Bundle) -> None:
    take(rig, samples_of(bundle)[:3])
    assert kept.running_trip(rig.state.connection) is not None
    rig.agent.driving.end_trip()
    assert kept.running_trip(rig.state.connection) is None
    assert counters(rig) == {"short_trips": 1}


def test_a_replayed_file_writes_and_restores_no_checkpoint(tmp_path: Path, bundle: Bundle) -> None:
    made = Rig(tmp_path / "replay.db", bundle)
    take(made, samples_of(bundle)[:200])
    assert kept.running_trip(made.state.connection) is None
    made.state.close()


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "other bundle"])
def test_a_checkpoint_that_cannot_be_used_is_counted_as_lost_and_forgotten(
    rig: Rig, bundle: Bundle, damage: str, tmp_path: Path
) -> None:
    take(rig, samples_of(bundle)[:200])
    raw = bytearray(kept.running_trip(rig.state.connection) or b"")
    if damage == "bit":
        raw[len(raw) // 2] ^= 4
    elif damage == "cut":
        del raw[len(raw) // 2 :]
    elif damage == "empty":
        raw.clear()
    else:
        saved = trip_state.decode(bytes(raw), bundle.sha256)
        raw = bytearray(trip_state.encode(_with(saved, bundle="0" * 64)))
    with rig.state.transaction() as db:
        kept.save_running_trip(db, "trip-1", bytes(raw))
    killed(rig)
    assert counters(rig) == {"running_trips_lost": 1}
    assert kept.running_trip(rig.state.connection) is None
    take(rig, samples_of(bundle)[200:220])
    rig.agent.driving.end_trip()
    assert [one.samples for one in reported(rig)] == [20]


def _with(saved: trip_state.Saved, **changes: Any) -> trip_state.Saved:
    return trip_state.Saved(**{n: getattr(saved, n) for n in saved.__struct_fields__} | changes)


@pytest.mark.parametrize("unit", ["km", "mi", "Ah"])
@given(silent_s=st.floats(0.1, 300.0), share=st.floats(0.0, 1.0))
def test_a_car_no_faster_than_a_car_continues(unit: str, silent_s: float, share: float) -> None:
    last = Sample(START, 1000.0, {}, 4.0)
    way = share * 0.0621 * silent_s
    later = Sample(START + silent_s, 1000.0 + way, {}, 4.0)
    assert continues(last, later, 300.001, unit) is None


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_a_trip(raw: bytes) -> None:
    with pytest.raises(ValueError, match="checksum"):
        trip_state.decode(raw, "b")
