"""A car that takes bundles over the air, on a real disk; the test plays the cloud."""

from __future__ import annotations

import random
import struct
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle, load_bundle
from common.manifest import encode_manifest
from common.messages import decode, encode
from common.release import (
    FILES,
    Announcement,
    BundleAck,
    Chunk,
    Fetch,
    announced_file,
    sign_announcement,
)
from common.topics import topic
from common.trust import TrustStore
from edge_agent.agent import Agent
from edge_agent.bundle_update.announcement import Receiver
from edge_agent.bundle_update.start import begin
from edge_agent.bundle_update.updater import BundleUpdates
from edge_agent.config import Config, Limits
from edge_agent.mqtt.link import Connected, MqttLink, Received
from edge_agent.storage import kept
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import Clock as AgentClock
from tests.support_edge import KEY, TRUSTED, VEHICLE, Clock, MemoryLink, drive, write_bundle
from tests.waiting import eventually

CHUNK_BYTES = 512
CRASHES_AT = 604
"""A tensor index in the tiny model: with another value the runtime reads where nothing is."""


class Car:
    """An agent with updates; `open` is a start, `crash` what a kill -9 leaves."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.factory = load_bundle(write_bundle(folder / "bundle"))
        self.trusted = TrustStore(TRUSTED)
        self.clock = Clock()
        self.config = Config(
            vehicle_id=VEHICLE,
            bundle="bundle",
            state="state.db",
            trusted_keys=["unused.pem"],
            limits=Limits(**limits),
            base=str(folder),
        )
        self.state: State | None = None
        self.open()

    def open(self) -> None:
        """Start, and connect."""
        clock = AgentClock(self.clock.unix, self.clock.monotonic)
        self.link = MemoryLink()
        start = begin(self.config, clock.unix, counts=True)
        self.state = start.state
        link, limits = cast("MqttLink", self.link), self.config.limits
        self.agent = Agent(VEHICLE, start.bundle, self.trusted, start.state, link, limits, clock)
        who = Receiver(VEHICLE, lambda: self.agent.identity.trusted, limits.bundle_bytes)
        made = partial(BundleUpdates, start, self.config, who, clock, random.Random(1))
        self.agent.take_updates(made)
        assert self.agent.updates is not None
        self.updates = self.agent.updates
        self.tell(Connected())

    def crash(self) -> None:
        """The process is gone; the kernel lets go of the lock."""
        if self.state is not None:
            self.updates.close(in_order=False)
            self.state.close()
            self.state = None

    def restart(self) -> None:
        """A crash, and a start."""
        self.crash()
        self.open()

    def stop(self) -> None:
        """A clean end."""
        self.updates.close(in_order=True)
        self.crash()

    def tell(self, *events: Any) -> None:
        self.link.events.extend(events)
        self.agent.poll()

    def turn(self, seconds: float = 1.0) -> None:
        """Let time pass and the agent do what is due."""
        self.clock.now += seconds
        self.agent.poll()

    def drive(self, trip_id: str, **options: Any) -> None:
        for sample in drive(self.agent_bundle, trip_id, **options):
            self.agent.take(sample)
        self.agent.driving.end_trip()
        self.turn()

    @property
    def agent_bundle(self) -> Bundle:
        """The bundle that runs, read anew."""
        folder = self.folder / "state.db.bundles" / self.runs
        return load_bundle(folder if folder.is_dir() else self.folder / "bundle")

    @property
    def runs(self) -> str:
        return self.agent.identity.bundle

    @property
    def acks(self) -> list[BundleAck]:
        """What was said of releases, in order, receipts or not."""
        return _distinct(decode(p, BundleAck) for p in self.link.payloads("bundle_ack"))

    @property
    def said(self) -> list[tuple[int, str, str]]:
        return [(ack.release, ack.state, ack.reason) for ack in self.acks]

    @property
    def refusals(self) -> list[str]:
        assert self.state is not None
        return [refusal.reason for refusal in kept.refusals(self.state.connection, 200)]

    def announced(self, release: bytes) -> None:
        """The retained message, as it comes with every connection."""
        self.tell(Received(topic(VEHICLE, "bundle"), release))

    def chunk(self, chunk: Chunk) -> None:
        self.tell(Received(topic(VEHICLE, "chunk"), encode(chunk)))

    def fetches(self) -> list[Fetch]:
        """What was asked for since the last call."""
        asked = [decode(payload, Fetch) for payload in self.link.payloads("fetch")]
        self.link.sent = [sent for sent in self.link.sent if sent[0] != "fetch"]
        return asked

    def fetch_all(self, new: Bundle, release: int = 1) -> None:
        """Play the cloud until nothing more is asked for."""
        for _ in range(100):
            self.turn()
            asked = self.fetches()
            for fetch in asked:
                for index in fetch.chunks:
                    self.chunk(chunk_of(new, fetch.file, index, release))
            if not asked and self.updates._download is None:
                return

    def self_tested(self) -> None:
        """Wait for the self-test's own process."""
        eventually(self._is_tested, 60.0, "the self-test")
        self.turn()

    def _is_tested(self) -> bool:
        self.turn(0.01)
        return self.updates._test is None

    def take(self, new: Bundle, release: int = 1, **changes: Any) -> None:
        """A whole update, up to the self-test's verdict."""
        self.announced(release_of(new, release, **changes))
        self.fetch_all(new, release)
        self.self_tested()


def _distinct(acks: Any) -> list[BundleAck]:
    return list({ack.message_id: ack for ack in acks}.values())


def content_of(bundle: Bundle) -> dict[str, bytes]:
    return {name: (bundle.path / name).read_bytes() for name in FILES}


def release_of(
    bundle: Bundle, release: int = 1, /, key: Ed25519PrivateKey = KEY, **changes: Any
) -> bytes:
    """The signed announcement of a bundle."""
    content = content_of(bundle)
    made = Announcement(
        kind="bundle_release",
        vehicle_id=VEHICLE,
        release=release,
        bundle=bundle.sha256,
        chunk_bytes=CHUNK_BYTES,
        files=[announced_file(name, content[name], CHUNK_BYTES) for name in FILES],
        announced_at=1.0,
    )
    return encode(sign_announcement(msgspec.structs.replace(made, **changes), key))


def chunk_of(bundle: Bundle, name: str, index: int, release: int = 1, /, **changes: Any) -> Chunk:
    """One chunk, as the cloud sends it."""
    data = content_of(bundle)[name][index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
    made = Chunk(vehicle_id=VEHICLE, release=release, file=name, index=index, data=data)  # type: ignore[arg-type]
    return msgspec.structs.replace(made, **changes)


def other_bundle(folder: Path, **changes: Any) -> Bundle:
    """A new model for the same car, with another threshold."""
    return load_bundle(write_bundle(folder, **{"name": "next", **changes}))


def spoiled_bundle(folder: Path, model: bytes) -> Bundle:
    """A bundle whose manifest vouches for this model."""
    found = other_bundle(folder)
    (folder / MODEL_FILE).write_bytes(model)
    sha256 = announced_file(MODEL_FILE, model).sha256
    manifest = msgspec.structs.replace(found.manifest, model_sha256=sha256)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    return load_bundle(folder)


def crashing_model(model: bytes) -> bytes:
    """Whole by the file format's rules, and the end of the process that runs it."""
    hostile = bytearray(model)
    struct.pack_into("<I", hostile, CRASHES_AT, 5)
    return bytes(hostile)
