"""Bundles announced to vehicles: ordered, signed, published until heard, handed out in chunks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from cloud.bundles import Catalogue
from cloud.calibration.revising import Author
from cloud.commands import bundle_reports
from cloud.intake.chunks import BURST_BYTES, BYTES_PER_S, ChunkServer
from cloud.intake.interpretation import Delivery
from cloud.push.releases import Releases, add_stored
from cloud.store.tables import BundleFiles, Quarantine, Release
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.errors import BundleError
from common.messages import decode, encode, message_id
from common.release import (
    CHUNK_BYTES,
    Announcement,
    BundleAck,
    Chunk,
    Fetch,
    SignedAnnouncement,
    decode_announcement,
    digest,
    verify_announcement,
)
from common.signing import key_id
from common.topics import topic
from common.trust import TrustStore
from tests.cloud_doubles import NOW, Car, Insides, write_bundle
from tests.support_bundle_update import spoiled_bundle
from tests.test_edge_cli import ENVIRONMENT


class Announcing(Insides):
    """A service with releases, over the database in `folder`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, write_bundle(folder / "bundle"))
        self.new = load_bundle(write_bundle(folder / "new", "next"))
        self.database = folder / "twin.db"

    def start(self) -> None:
        super().start()
        add_stored(self.store, self.catalogue)
        author = Author(self.key, "0.1.0")
        self.worker._releases = self.worker._courier._releases = Releases(
            self.store, self.catalogue, author, self.publisher, lambda: self.now
        )

    def order(self, *vehicles: str, bundle: Bundle | None = None) -> Any:
        folder = (bundle or self.new).path
        found = bundle_reports.announce(self.database, folder, vehicles or None, "why", NOW)
        self.worker.wake()
        self.work()
        return found

    @property
    def announced(self) -> list[Announcement]:
        sent = self.publisher.of_kind("bundle")
        assert all(one.retain for one in sent)
        trusted = TrustStore({key_id(self.key.public_key()): self.key.public_key()})
        return [
            decode_announcement(verify_announcement(decode(s.payload, SignedAnnouncement), trusted))
            for s in sent
        ]

    @property
    def chunks(self) -> list[Chunk]:
        return [decode(sent.payload, Chunk) for sent in self.publisher.of_kind("chunk")]

    def says(self, message: Fetch | BundleAck) -> None:
        kind: Any = "fetch" if isinstance(message, Fetch) else "bundle_ack"
        self.take(Delivery(topic(message.vehicle_id, kind), encode(message), mid=1))

    def row(self) -> Release:
        with self.store.read() as db:
            return db.exec(select(Release)).one()


@pytest.fixture
def service(tmp_path: Path) -> Announcing:
    made = Announcing(tmp_path)
    made.take(made.car("car").status(), made.car("other").status())
    return made


def ack(made: Announcement, state: Any, content: bytes, reason: Any = "") -> BundleAck:
    return BundleAck(
        message_id=message_id(made.vehicle_id, "", f"{state}-{reason}"),
        vehicle_id=made.vehicle_id,
        release=made.release,
        bundle=made.bundle,
        announcement_hash=digest(content),
        state=state,
        reason=reason,
        decided_at=NOW,
    )


def fetch(service: Announcing, name: Any, *chunks: int) -> Fetch:
    return Fetch(
        vehicle_id="car",
        release=1,
        bundle=service.new.sha256,
        file=name,
        chunks=list(chunks),
        missing=len(chunks),
    )


def test_an_order_becomes_a_signed_retained_announcement(service: Announcing) -> None:
    service.order("car")
    [made] = service.announced
    assert (made.vehicle_id, made.release, made.bundle) == ("car", 1, service.new.sha256)
    assert made.file(MODEL_FILE).size == len(service.new.model)
    assert made.reason == "why"
    assert service.row().published_at == NOW


def test_all_means_every_vehicle_that_runs_another_bundle(service: Announcing) -> None:
    service.take(service.car("third").status(bundle=service.new.sha256))
    service.order()
    assert {made.vehicle_id for made in service.announced} == {"car", "other"}


def test_numbers_rise_above_what_the_vehicle_says_that_it_believed(service: Announcing) -> None:
    """A database that was restored from a backup has forgotten the newest releases."""
    service.take(service.car("car").status(bundle_release=7))
    service.order("car")
    service.order("car", bundle=service.bundle)
    assert [made.release for made in service.announced] == [8, 9]


def test_it_is_published_again_until_the_vehicle_believes_it(service: Announcing) -> None:
    service.order("car")
    service.worker.reconnected()
    service.work()
    service.take(service.car("car").status(bundle_release=0))
    service.work()
    assert len(service.announced) == 3
    service.take(service.car("car").status(bundle_release=1))
    service.says(ack(service.announced[0], "fetching", service.row().content or b""))
    service.worker.reconnected()
    service.work()
    assert len(service.announced) == 3


@pytest.mark.parametrize("name", [MANIFEST_FILE, MODEL_FILE])
def test_chunks_are_what_was_announced(service: Announcing, name: Any) -> None:
    service.order("car")
    [made] = service.announced
    service.says(fetch(service, name, 0, 7))
    [chunk] = service.chunks
    assert (chunk.file, chunk.index, chunk.release) == (name, 0, 1)
    assert digest(chunk.data) == made.file(name).chunks[0]
    assert service.row().missing == 2
    assert service.publisher.acknowledged


def test_a_large_model_is_cut_into_chunks_that_fit_a_message(tmp_path: Path) -> None:
    service = Announcing(tmp_path)
    service.take(service.car("car").status())
    service.order("car")
    model = bytes(range(256)) * 1000
    with service.store.write() as db:
        files = db.get(BundleFiles, service.new.sha256)
        assert files is not None
        files.model = model
        db.add(files)
    asked = fetch(service, MODEL_FILE, 0, 1, 2, 3)
    service.says(asked)
    assert b"".join(chunk.data for chunk in service.chunks) == model
    assert all(len(sent.payload) < 128 * 1024 for sent in service.publisher.of_kind("chunk"))


def test_chunks_are_paced_and_what_exceeds_the_pace_is_not_sent(service: Announcing) -> None:
    service.order("car")
    now = [0.0]
    server = ChunkServer(service.store, service.publisher, lambda: now[0])
    asked = fetch(service, MODEL_FILE, 0)
    size = 0
    while server.answer(asked):
        size += len(service.publisher.of_kind("chunk")[-1].payload)
    assert size <= BURST_BYTES < size + CHUNK_BYTES * 2
    now[0] += CHUNK_BYTES / BYTES_PER_S
    assert server.answer(asked) == 1


def test_what_a_vehicle_says_is_kept_and_a_late_word_unsays_nothing(service: Announcing) -> None:
    service.order("car")
    [made], content = service.announced, service.row().content or b""
    for state in ("fetching", "trial", "staged", "installed", "trial"):
        service.says(ack(made, state, content))
    assert service.row().state == "installed"
    service.says(ack(made, "rolled_back", content, "damaged"))
    assert (service.row().state, service.row().state_reason) == ("rolled_back", "damaged")
    receipts = [sent.receipt for sent in service.publisher.of_kind("receipt")]
    assert all(receipt.vehicle_id == "car" for receipt in receipts)
    assert len({mid for receipt in receipts for mid in receipt.message_ids}) == 5


def test_words_about_a_release_that_was_never_made_are_quarantined(service: Announcing) -> None:
    service.order("car")
    [made] = service.announced
    service.says(ack(made, "installed", b"something else"))
    foreign = Fetch(
        vehicle_id="other", release=1, bundle=made.bundle, file=MODEL_FILE, chunks=[0], missing=1
    )
    service.says(foreign)
    assert service.row().state is None
    assert not service.chunks
    errors = [row.error for row in service.table(Quarantine)]
    assert errors == ["UnknownReleaseError"] * 2


def test_a_breach_of_a_bundle_that_comes_later_waits_and_is_calibrated_then(
    service: Announcing,
) -> None:
    """From the new bundle's own prior: what was learned for the old one says nothing of it."""
    service.take(service.car().breach(1))
    service.work()
    new = Car("car", service.new)
    service.take(new.breach(2))
    service.work()
    assert service.breach_states() == {"trip1": "calibrated", "trip2": "pending"}
    service.order("car")
    assert service.breach_states() == {"trip1": "calibrated", "trip2": "calibrated"}
    first, second = service.rows()
    assert (first.bundle, second.bundle) == (service.bundle.sha256, service.new.sha256)
    assert service.publisher.of_kind("parameters")[-1].revision.base == 0


def test_a_restarted_service_knows_what_was_announced(service: Announcing) -> None:
    service.order("car")
    service.catalogue = Catalogue([service.bundle])
    service.start()
    assert service.catalogue.manifest(service.new.sha256).name == "next"


def test_a_bundle_that_no_vehicle_would_take_is_not_announced(
    service: Announcing, tmp_path: Path
) -> None:
    bad = spoiled_bundle(tmp_path / "bad", service.new.model[:200])
    with pytest.raises(BundleError, match="truncated"):
        service.order("car", bundle=bad)
    assert not service.table(Release)


def test_an_order_for_an_unknown_vehicle_keeps_nothing(service: Announcing) -> None:
    assert service.order("car", "ghost") == "ghost"
    assert not service.table(Release)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cloud", "bundle", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_orders_and_shows(service: Announcing) -> None:
    database, folder = str(service.database), str(service.new.path)
    both = command("announce", "car", "--all", "--bundle", folder, "--database", database)
    assert both.returncode == 2
    unknown = command("announce", "ghost", "--bundle", folder, "--database", database)
    assert unknown.returncode == 3
    done = command("announce", "car", "--bundle", folder, "--database", database)
    assert done.returncode == 0, done.stderr
    shown = command("status", "--database", database, "--json")
    by_vehicle = {row["vehicle_id"]: row for row in json.loads(shown.stdout)}
    assert by_vehicle["car"]["state"] == "ordered"
    assert by_vehicle["other"].get("state") is None
