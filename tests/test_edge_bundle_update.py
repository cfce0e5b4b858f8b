"""Another bundle over the air: whatever is lost, doubled or forged, a whole bundle runs.

INVARIANTS 5, 7 and 8 for bundles: signed, addressed, newer, tested; bounded; never stopped.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.training.tflite_writer import write_tflite
from common.bundle import Bundle, load_bundle
from common.messages import Receipt, Status, decode, encode
from common.release import FILES, Announcement, announced_file, digest
from common.topics import topic
from common.trust import TrustStore
from edge_agent.bundle_update import chunk_store, self_test_process
from edge_agent.bundle_update.announcement import incompatibility
from edge_agent.bundle_update.folder import UpdateFolder
from edge_agent.bundle_update.record import STARTS, Record
from edge_agent.bundle_update.updater import BAD_CHUNKS
from edge_agent.config import Can, CanSignal, Source
from edge_agent.mqtt.link import Connected, Received
from tests.support_bundle_update import (
    Car,
    chunk_of,
    content_of,
    crashing_model,
    other_bundle,
    release_of,
    spoiled_bundle,
)
from tests.support_edge import (
    AGEING_ACTS,
    FOREIGN_KEY,
    NETWORK,
    VEHICLE,
    drive,
    revision_for,
    signed,
    write_bundle,
)


@pytest.fixture
def car(tmp_path: Path) -> Iterator[Car]:
    made = Car(tmp_path / "car")
    yield made
    made.crash()


@pytest.fixture
def new(tmp_path: Path) -> Bundle:
    return other_bundle(tmp_path / "new")


class PassedAtOnce:
    """Stands for the self-test's process where a test is about something else."""

    def __init__(self, *_: object) -> None:
        pass

    def problem(self, _now: float) -> str:
        return ""

    def close(self) -> None:
        pass


@pytest.fixture
def no_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test_process, "SelfTest", PassedAtOnce)


def bundles_on_disk(car: Car) -> set[str]:
    folder = car.folder / "state.db.bundles"
    return {entry.name for entry in folder.iterdir() if len(entry.name) == 64}


# ---- the whole way --------------------------------------------------------------------------


def test_an_announced_bundle_is_fetched_tested_swapped_in_and_after_a_trip_it_stays(
    car: Car, new: Bundle
) -> None:
    car.drive("trip-1", gain=1.1)
    car.take(new)
    assert car.said == [(1, "fetching", ""), (1, "staged", "")]
    assert car.runs == car.factory.sha256, "nothing changes before the swap"
    assert car.updates.swap()
    car.turn()
    assert car.updates.record.trial_starts == 0, "a trip with the old bundle proves nothing"
    car.restart()
    assert car.runs == new.sha256
    assert car.agent.status().bundle == new.sha256
    car.drive("trip-2", gain=1.0)
    assert car.said == [(1, s, "") for s in ("fetching", "staged", "trial", "installed")]
    assert car.agent.status().bundle_release == 1
    assert car.updates.record.trial_starts is None


def test_a_swap_waits_for_the_end_of_the_trip(car: Car, new: Bundle, no_self_test: None) -> None:
    samples = list(drive(car.factory, None))
    car.agent.take(samples[0])
    car.take(new)
    assert car.updates.is_staged
    assert car.agent.driving.is_in_trip
    car.crash()
    car.open()
    assert car.runs == new.sha256, "a trip that no checkpoint kept is over: the next start swaps"


def test_what_is_to_be_sent_stays_and_parameters_come_back_with_their_bundle(
    car: Car, new: Bundle, no_self_test: None
) -> None:
    car.drive("trip-1", gain=1.1)
    car.tell(Received(topic(VEHICLE, "parameters"), signed(revision_for(car.factory))))
    assert car.agent.twin.revision == 1
    depth = car.agent.status().outbox_depth
    car.take(new)
    car.updates.swap()
    car.restart()
    assert car.agent.twin.revision == 0, "another model begins with its own prior"
    assert car.agent.status().outbox_depth > depth, "trip, breach and acknowledgement still wait"
    for _ in range(STARTS):
        car.restart()
    assert car.runs == car.factory.sha256
    assert car.agent.twin.revision == 1, "what was learned for the old model is there again"


def test_an_older_bundle_comes_back_under_a_higher_release_without_being_fetched(
    car: Car, new: Bundle, no_self_test: None
) -> None:
    for release, bundle in ((1, new), (2, car.factory)):
        car.take(bundle, release)
        car.updates.swap()
        car.restart()
        car.drive(f"trip-{release}", gain=1.0)
    car.fetches()
    car.announced(release_of(new, 3))
    car.turn()
    assert car.fetches() == []
    assert car.updates.is_staged


# ---- what is believed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason", "answers"),
    [
        ({"key": FOREIGN_KEY}, "untrusted_key", 0),
        ({"vehicle_id": "car-2"}, "wrong_vehicle", 0),
        ({"schema": 9}, "unknown_schema", 1),
        ({"chunk_bytes": 100}, "malformed", 1),
        ({"bundle": "a" * 64}, "malformed", 1),
    ],
)
def test_an_announcement_that_is_not_believed_changes_nothing_and_is_kept(
    car: Car, new: Bundle, changes: dict[str, Any], reason: str, answers: int
) -> None:
    before = car.updates.record
    car.announced(release_of(new, **changes))
    car.turn()
    assert car.updates.record == before
    assert car.fetches() == []
    assert car.refusals[0].startswith(reason)
    assert car.said == [(1, "refused", reason)] * answers


def test_a_forged_byte_is_a_bad_signature(car: Car, new: Bundle) -> None:
    car.announced(release_of(new).replace(b"next", b"neyt").replace(new.sha256.encode(), b"0" * 64))
    assert car.refusals[0].startswith("bad_signature")


@pytest.mark.parametrize("payload", [b"", b"{}", b"\xff", b"[" * 5000, b'{"schema": 1}'])
def test_garbage_on_either_topic_is_counted_and_kept(car: Car, payload: bytes) -> None:
    car.tell(*(Received(topic(VEHICLE, kind), payload) for kind in ("bundle", "chunk")))
    assert len(car.refusals) == 2


def test_nothing_older_is_believed_again_not_even_after_a_power_cut(
    car: Car, new: Bundle, tmp_path: Path
) -> None:
    car.announced(release_of(new, 5))
    car.restart()
    third = other_bundle(tmp_path / "third", error_threshold_v=0.04)
    car.announced(release_of(third, 5))
    car.announced(release_of(new, 4))
    car.turn()
    assert [said for said in car.said if said[1] == "refused"] == [
        (5, "refused", "not_newer"),
        (4, "refused", "not_newer"),
    ]


def test_the_floor_is_known_in_a_second_place(car: Car, new: Bundle) -> None:
    car.announced(release_of(new, 5))
    car.turn()
    car.crash()
    record = car.folder / "state.db.bundles" / "record.json"
    record.write_bytes(record.read_bytes().replace(b'"floor":5', b'"floor":0'))
    car.open()
    assert record.with_suffix(".set-aside").exists()
    car.announced(release_of(new, 4))
    car.turn()
    assert car.said[-1] == (4, "refused", "not_newer")


def test_the_same_announcement_again_is_no_news(car: Car, new: Bundle) -> None:
    for _ in range(3):
        car.announced(release_of(new))
    car.turn()
    assert car.said == [(1, "fetching", "")]
    assert not car.refusals


def test_a_newer_release_takes_the_place_of_one_under_way(
    car: Car, new: Bundle, tmp_path: Path, no_self_test: None
) -> None:
    third = other_bundle(tmp_path / "third", error_threshold_v=0.04)
    car.announced(release_of(new, 1))
    car.turn()
    car.chunk(chunk_of(new, FILES[0], 0))
    car.take(third, 2)
    car.updates.swap()
    car.restart()
    assert car.runs == third.sha256


def test_a_key_that_is_trusted_no_more_ends_what_it_had_begun(car: Car, new: Bundle) -> None:
    car.announced(release_of(new))
    car.crash()
    car.trusted = TrustStore({})
    car.open()
    car.turn()
    assert car.said[-1] == (1, "refused", "untrusted_key")
    assert car.fetches() == []


# ---- bounds -------------------------------------------------------------------------------------


def test_a_bundle_beyond_the_limit_is_refused_before_anything_is_fetched(
    tmp_path: Path, new: Bundle
) -> None:
    car = Car(tmp_path / "small", bundle_bytes=1000)
    car.announced(release_of(new))
    car.turn()
    assert car.said == [(1, "refused", "too_large")]
    assert not (car.folder / "state.db.bundles" / "incoming").exists()
    car.crash()


def test_a_disk_without_room_is_a_named_refusal(
    car: Car, new: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(car.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    car.announced(release_of(new))
    car.turn()
    assert car.said == [(1, "fetching", ""), (1, "refused", "no_space")]


def test_endless_chunks_that_nobody_asked_for_leave_no_trace(car: Car, new: Bundle) -> None:
    car.announced(release_of(new))
    size = sum(len(content) for content in content_of(new).values())
    for index in range(50, 250):
        car.chunk(chunk_of(new, FILES[1], 0, index=index, data=bytes(60_000)))
    incoming = car.folder / "state.db.bundles" / "incoming"
    assert sum(entry.stat().st_size for entry in incoming.iterdir()) == size


def test_chunks_that_are_never_right_end_the_update(car: Car, new: Bundle) -> None:
    car.announced(release_of(new))
    for _ in range(BAD_CHUNKS):
        car.chunk(chunk_of(new, FILES[0], 0, data=b"wrong"))
    car.turn()
    assert car.said[-1] == (1, "refused", "chunk_mismatch")
    assert not (car.folder / "state.db.bundles" / "incoming").exists()


def test_files_that_are_not_their_chunks_are_refused(car: Car, new: Bundle) -> None:
    files = [announced_file(name, content_of(new)[name], 512) for name in FILES]
    files[1] = msgspec.structs.replace(files[1], sha256="0" * 64)
    car.announced(release_of(new, files=files))
    car.fetch_all(new)
    car.turn()
    assert car.said[-1] == (1, "refused", "chunk_mismatch")


def test_requests_are_few_and_ever_rarer_while_nobody_answers(car: Car, new: Bundle) -> None:
    car.announced(release_of(new))
    times = []
    for second in range(3600):
        car.turn()
        times += [second for _ in car.fetches()]
    assert len(times) < 20
    assert times[-1] - times[-2] > 500
    car.chunk(chunk_of(new, FILES[0], 0))
    car.tell(Connected())
    car.turn()
    assert car.fetches()[0].chunks[0] == 1


def test_old_bundles_are_removed_but_for_the_one_before(
    car: Car, tmp_path: Path, no_self_test: None
) -> None:
    made = [
        other_bundle(tmp_path / str(number), error_threshold_v=0.03 + number / 1000)
        for number in range(4)
    ]
    for release, bundle in enumerate(made, 1):
        car.take(bundle, release)
        car.updates.swap()
        car.restart()
        car.drive(f"trip-{release}", gain=1.0)
    assert bundles_on_disk(car) == {made[2].sha256, made[3].sha256}


# ---- losses, doubles, damage, interruptions ----------------------------------------------------

Delivery = tuple[int, str]
deliveries = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["good", "good", "bad", "cut"])), max_size=60
)


@settings(max_examples=30)
@given(events=deliveries)
def test_any_order_loss_doubling_or_damage_ends_in_the_announced_files(
    tmp_path_factory: pytest.TempPathFactory, events: list[Delivery]
) -> None:
    folder = tmp_path_factory.mktemp("chunks")
    new = other_bundle(folder / "new")
    content = content_of(new)
    announcement = msgspec.json.decode(
        msgspec.json.decode(release_of(new))["announcement"], type=Announcement
    )
    store = chunk_store.ChunkStore(folder / "incoming", announcement)
    every = store.missing()
    for number, what in events:
        name, index = every[number % len(every)]
        if what == "cut":
            _tear(folder / "incoming" / name, index)
            store = chunk_store.ChunkStore(folder / "incoming", announcement)
            assert (name, index) in store.missing()
        elif what == "bad":
            assert store.take(chunk_of(new, name, index, data=b"x")) in {"mismatch", "known"}
        else:
            assert store.take(chunk_of(new, name, index)) in {"kept", "known"}
    for name, index in store.missing():
        store.take(chunk_of(new, name, index))
    assert store.finish()
    assert {name: (folder / "incoming" / name).read_bytes() for name in FILES} == content


def _tear(path: Path, index: int) -> None:
    """What a power cut in the middle of a write may leave."""
    with path.open("r+b") as file:
        file.seek(index * 512)
        file.write(os.urandom(64))


def test_a_download_goes_on_where_it_was_cut(car: Car, new: Bundle) -> None:
    car.announced(release_of(new))
    for index in (0, 1, 2):
        car.chunk(chunk_of(new, FILES[0], index))
    car.restart()
    car.turn()
    [fetch] = car.fetches()
    assert (fetch.file, fetch.chunks[0]) == (FILES[0], 3)


class PowerCutError(BaseException):
    """The power went just after something had happened on the disk."""


class Power:
    """Cuts the power at the n-th change of the disk."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.at = 0, 10**9
        for owner, name in (
            (Path, "replace"),
            (Path, "rename"),
            (shutil, "rmtree"),
            (os, "posix_fallocate"),
            (Path, "mkdir"),
        ):
            patch.setattr(owner, name, self._guarded(getattr(owner, name)))
        patch.setattr(os, "fsync", self._guarded(lambda _: None))  # the cut is only played

    def _guarded(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **options: Any) -> Any:
            done = act(*args, **options)
            self.count += 1
            if self.count == self.at:
                raise PowerCutError
            return done

        return guarded


def _drive_home(car: Car, new: Bundle, trip_id: str) -> None:
    """The whole update, from wherever the car stands."""
    car.announced(release_of(new))
    car.fetch_all(new)
    for _ in range(3):
        car.turn()
    if car.updates.is_staged:
        assert car.updates.swap()
        car.crash()
        car.open()
    if car.updates.record.trial_starts is not None:
        car.drive(trip_id, gain=1.0)


# A process that the power left has closed no file of its own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_wherever_the_power_goes_the_old_or_the_new_bundle_runs_and_the_update_ends(
    tmp_path: Path, new: Bundle, monkeypatch: pytest.MonkeyPatch, no_self_test: None
) -> None:
    power = Power(monkeypatch)
    cut, at = 0, 0
    while True:
        at += 1
        car = Car(tmp_path / f"car-{at}")
        power.count, power.at = 0, at
        try:
            _drive_home(car, new, "first")
        except PowerCutError:
            cut += 1
        else:
            break
        power.at = 10**9
        car.crash()
        car.open()
        assert car.runs in {car.factory.sha256, new.sha256}, f"after a cut at {at}"
        _drive_home(car, new, "second")
        assert car.runs == new.sha256, f"after a cut at {at}"
        assert car.updates.record.trial_starts is None
        assert car.agent.status().bundle_release == 1
        car.crash()
    car.crash()
    assert cut > 30


def test_a_record_is_written_whole_or_not_at_all(
    car: Car, new: Bundle, monkeypatch: pytest.MonkeyPatch, no_self_test: None
) -> None:
    car.take(new)
    before = car.updates.record
    power = Power(monkeypatch)
    power.at = 2  # the folder is there, the new record is beside the old one
    with pytest.raises(PowerCutError):
        car.updates.swap()
    car.crash()
    assert UpdateFolder(car.folder / "state.db", VEHICLE).read() == before


# ---- the self-test --------------------------------------------------------------------------


def test_a_damaged_model_is_refused(car: Car, tmp_path: Path) -> None:
    model = content_of(car.factory)[FILES[1]]
    car.take(spoiled_bundle(tmp_path / "bad", model[: len(model) // 2]))
    assert car.said[-1] == (1, "refused", "self_test_failed")
    assert "truncated, damaged or no .tflite" in car.acks[-1].detail
    assert car.runs == car.factory.sha256
    assert bundles_on_disk(car) == set()


def test_a_model_that_predicts_no_number_is_refused(car: Car, tmp_path: Path) -> None:
    bias = (np.array([0.0]), np.array([np.nan]))
    model = write_tflite(msgspec_replace(NETWORK, biases=bias), AGEING_ACTS)
    car.take(spoiled_bundle(tmp_path / "nan", model))
    assert car.said[-1] == (1, "refused", "self_test_failed")
    assert "no number" in car.acks[-1].detail


def test_a_model_that_crashes_the_runtime_crashes_only_the_self_test(
    car: Car, tmp_path: Path
) -> None:
    car.take(
        spoiled_bundle(tmp_path / "hostile", crashing_model(content_of(car.factory)[FILES[1]]))
    )
    assert car.said[-1] == (1, "refused", "self_test_failed")
    # Where in memory the model lies decides whether the runtime crashes or sees it coming.
    detail = car.acks[-1].detail
    assert "it ended with signal" in detail or "does not run" in detail
    assert car.runs == car.factory.sha256


def test_a_model_that_is_absurd_on_the_cars_own_trips_is_refused(car: Car, tmp_path: Path) -> None:
    car.drive("trip-1", gain=1.1)
    model = write_tflite(msgspec_replace(NETWORK, output_scale=-0.6), AGEING_ACTS)
    car.take(spoiled_bundle(tmp_path / "upside-down", model))
    assert car.said[-1] == (1, "refused", "self_test_failed")
    assert "both uncalibrated" in car.acks[-1].detail


def test_a_self_test_that_was_cut_short_is_begun_again(car: Car, new: Bundle) -> None:
    car.announced(release_of(new))
    car.fetch_all(new)
    car.restart()
    assert car.updates._test is not None
    car.self_tested()
    assert car.updates.is_staged


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"odometer_unit": "Ah"}, "odometer"),
        ({"name": "x", "target": "cell_v"}, "it predicts cell_v"),
        ({"features": "wind_m_s"}, "no source gives wind_m_s"),
    ],
)
def test_a_bundle_that_this_car_cannot_feed_is_refused_before_its_model_is_fetched(
    car: Car, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    manifest = car.factory.manifest
    if "target" in changes:
        changes["target"] = msgspec.structs.replace(manifest.target, name=changes["target"])
    if "features" in changes:
        wind = msgspec.structs.replace(manifest.features[0], name=changes["features"])
        changes["features"] = [wind, manifest.features[1]]
        changes["health"] = None
    bundle = load_bundle(write_bundle(tmp_path / "other", **changes))
    car.announced(release_of(bundle))
    asked = []
    for _ in range(20):
        car.turn()
        for fetch in car.fetches():
            asked.append(fetch.file)
            for index in fetch.chunks:
                car.chunk(chunk_of(bundle, fetch.file, index))
    assert car.said[-1] == (1, "refused", "incompatible")
    assert said in car.acks[-1].detail
    assert set(asked) == {FILES[0]}


def test_a_can_bus_may_give_more_than_the_present_bundle_needs(car: Car, tmp_path: Path) -> None:
    signals = {name: CanSignal(name) for name in ("distance_km", "load_kg", "wind_m_s")}
    source = Source(kind="can", can=Can(dbc="x", signals=signals))
    config = msgspec.structs.replace(car.config, source=source)
    old = car.factory.manifest
    wind = msgspec.structs.replace(old.features[0], name="wind_m_s")
    more = msgspec.structs.replace(old, features=[*old.features, wind])
    assert incompatibility(more, old, config) is None


# ---- the trial, and what becomes of a bundle that fails ------------------------------------------


def swapped(car: Car, new: Bundle) -> None:
    car.take(new)
    car.updates.swap()
    car.restart()
    assert car.runs == new.sha256


def test_a_bundle_with_which_no_start_comes_through_a_trip_is_rolled_back(
    car: Car, new: Bundle, no_self_test: None
) -> None:
    swapped(car, new)
    for _ in range(STARTS - 1):
        car.restart()
        assert car.runs == new.sha256
    car.restart()
    assert car.runs == car.factory.sha256
    assert car.said[-1] == (1, "rolled_back", "crash_loop")
    car.announced(release_of(new))
    car.turn()
    assert car.runs == car.factory.sha256, "the release that failed is not tried again"
    assert not car.updates.is_staged


@pytest.mark.parametrize("how", ["clean end", "short trip", "a minute of peace"])
def test_starts_that_end_well_are_no_crashes(
    car: Car, new: Bundle, how: str, no_self_test: None
) -> None:
    swapped(car, new)
    for number in range(2 * STARTS):
        if how == "clean end":
            car.stop()
        elif how == "short trip":
            car.agent.take(next(drive(car.agent_bundle, f"short-{number}")))
            car.turn()
            car.agent.driving.end_trip()
            car.turn()
        else:
            car.turn(61.0)
        car.restart()
    assert car.runs == new.sha256


def test_a_bundle_that_is_damaged_on_the_disk_gives_way_to_the_one_before(
    car: Car, new: Bundle, tmp_path: Path, no_self_test: None
) -> None:
    third = other_bundle(tmp_path / "third", error_threshold_v=0.04)
    for release, bundle in ((1, new), (2, third)):
        car.take(bundle, release)
        car.updates.swap()
        car.restart()
        car.drive(f"trip-{release}", gain=1.0)
    folder = car.folder / "state.db.bundles"
    for bundle, then in ((third, new.sha256), (new, car.factory.sha256)):
        (folder / bundle.sha256 / FILES[1]).write_bytes(b"rust")
        car.restart()
        assert car.runs == then
    rolled_back = {said for said in car.said if said[1] == "rolled_back"}
    assert (1, "rolled_back", "damaged") in rolled_back


def test_a_bundle_on_trial_never_becomes_the_one_to_fall_back_to(
    car: Car, new: Bundle, tmp_path: Path, no_self_test: None
) -> None:
    swapped(car, new)
    third = other_bundle(tmp_path / "third", error_threshold_v=0.04)
    car.take(third, 2)
    car.updates.swap()
    for _ in range(STARTS + 1):
        car.restart()
    assert car.runs == car.factory.sha256


def test_another_bundle_in_the_configuration_is_a_persons_word(
    car: Car, new: Bundle, no_self_test: None
) -> None:
    swapped(car, new)
    car.drive("trip-1", gain=1.0)
    car.crash()
    by_hand = load_bundle(write_bundle(car.folder / "bundle", name="by-hand"))
    car.open()
    assert car.runs == by_hand.sha256
    assert car.updates.record.floor == 1


def test_a_full_disk_changes_nothing_and_is_tried_again(
    car: Car, new: Bundle, monkeypatch: pytest.MonkeyPatch, no_self_test: None
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", refuse)
        car.announced(release_of(new))
        car.turn()
        assert car.updates.record == Record(vehicle_id=VEHICLE)
    car.turn(31.0)
    swapped(car, new)


def test_receipts_free_what_was_said_and_it_is_not_said_twice(
    car: Car, new: Bundle, no_self_test: None
) -> None:
    car.take(new)
    ids = [ack.message_id for ack in car.acks]
    receipt = Receipt(vehicle_id=VEHICLE, message_ids=ids)
    car.tell(Received(topic(VEHICLE, "receipt"), encode(receipt)))
    assert car.agent.is_drained()
    car.restart()
    assert car.acks[-1].state == "trial"
    assert decode(car.link.payloads("status")[-1], Status).bundle == new.sha256


def msgspec_replace(network: Any, **changes: Any) -> Any:
    """Of a dataclass."""
    return type(network)(**{**vars(network), **changes})


def test_the_digest_is_sha256() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
