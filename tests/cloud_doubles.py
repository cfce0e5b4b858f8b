"""What the tests of the cloud share: a tiny bundle, vehicles' messages, and the service's insides.

`Insides` runs ingest and worker in the calling thread over a real database, with a publisher that
remembers; nothing here waits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import httpx
import msgspec
import numpy as np
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, event
from sqlmodel import select

from cloud.api.access import Context
from cloud.api.app import create_app
from cloud.api.authority import Actor, Admin, Operator, Viewer
from cloud.api.gate import CLOSED, Entrance
from cloud.bundles import Catalogue, load_catalogue
from cloud.calibration.revising import Author
from cloud.calibration.rounds import Calibrations
from cloud.intake.ingest import Committed, Ingest
from cloud.intake.interpretation import Delivery
from cloud.location import PostgresUrl
from cloud.observability.telemetry import Telemetry
from cloud.roles.service import listen
from cloud.roles.worker import Worker
from cloud.store import revisions
from cloud.store.database import Store
from cloud.store.tables import Breach as BreachRow
from cloud.store.tables import RevisionRow
from cloud.traces.archive import Archive
from cloud.training.candidates import Kind, Target
from cloud.training.network import Network
from cloud.training.tflite_writer import write_tflite
from common import calibration
from common.bundle import Bundle, load_bundle
from common.manifest import Feature, Health, Manifest, Parameter, encode_manifest
from common.manifest import Target as VoltageTarget
from common.messages import (
    Acknowledgement,
    Breach,
    Message,
    Provisional,
    Receipt,
    SignedRevision,
    Status,
    TripSummary,
    decode,
    encode,
    message_id,
)
from common.model import VoltageModel
from common.revision import Revision, decode_revision, revision_hash
from common.signing import Signer, key_id
from common.topics import parse_topic, topic
from common.trace import TraceArrays, to_wire

NOW = 1_790_000_000.0
POINTS = 40
ENDLESS_ENDS_S = 1  # a stream that is open when its server ends


def write_bundle(folder: Path, name: str = "tiny") -> Path:
    """A model of two features with a gain and an offset to calibrate; voltage about 4.1 to 2.9."""
    folder.mkdir(parents=True, exist_ok=True)
    network = Network(
        input_mean=np.array([200.0, 5000.0]),
        input_scale=np.array([100.0, 500.0]),
        weights=(np.array([[1.0, 0.05]]), np.array([[-1.0]])),
        biases=(np.array([0.0]), np.array([0.0])),
        output_mean=3.5,
        output_scale=0.6,
    )
    targets = [Target(Kind.INPUT_GAIN, (0,)), Target(Kind.OUTPUT_OFFSET, (0,))]
    model = write_tflite(network, targets)
    (folder / "voltage_model.tflite").write_bytes(model)
    (folder / "manifest.json").write_bytes(encode_manifest(_manifest(name, revision_hash(model))))
    return folder


def _manifest(name: str, model_sha256: str) -> Manifest:
    return Manifest(
        schema=1,
        name=name,
        model_sha256=model_sha256,
        features=[
            Feature("distance_km", "km", 0.0, 500.0),
            Feature("load_kg", "kg", 0.0, 9000.0),
        ],
        target=VoltageTarget("cell_voltage_v", "V", 1.0, 5.0),
        parameters=[
            Parameter("gain_distance", "1", 1.0, 0.1, 0.5, 2.0, 1e-8, 1e-6, 1e-16),
            Parameter("offset_output", "V", 0.0, 0.05, -0.5, 0.5, 1e-9),
        ],
        measurement_noise_std_v=0.01,
        model_discrepancy_std_v=0.005,
        cutoff_voltage_v=3.1,
        error_threshold_v=0.03,
        health=Health("distance_km", 0.0, 500.0, {"load_kg": 5000.0}),
    )


class Car:
    """A vehicle that ages: its true gain on the distance grows with the odometer."""

    def __init__(self, vehicle_id: str, bundle: Bundle) -> None:
        self.vehicle_id = vehicle_id
        self.bundle = bundle
        self._model = VoltageModel(bundle)

    def trace(self, odometer: float, points: int = POINTS) -> TraceArrays:
        """What its BMS measures along a trip that starts at `odometer`."""
        features = np.column_stack([np.linspace(0.0, 320.0, points), np.full(points, 5100.0)])
        voltage = self._model.predict(features, [1.02 + odometer * 1e-5, 0.0])
        noise = np.random.default_rng(int(abs(odometer))).normal(0.0, 0.01, points)
        return TraceArrays(np.linspace(0.0, 15000.0, points), features, voltage + noise)

    def breach(self, trip: int, odometer: float | None = None, **changes: Any) -> Breach:
        """The breach of a trip; by default it starts at 1000 km times its number."""
        at = 1000.0 * trip if odometer is None else odometer
        message = Breach(
            message_id=message_id(self.vehicle_id, f"trip{trip}", "breach"),
            vehicle_id=self.vehicle_id,
            trip_id=f"trip{trip}",
            bundle=self.bundle.sha256,
            revision=0,
            odometer=at,
            error_v=0.05,
            threshold_v=0.03,
            trace=to_wire(self.trace(at)),
        )
        return msgspec.structs.replace(message, **changes)

    def trip(self, trip: int, **changes: Any) -> TripSummary:
        """The summary of a trip."""
        message = TripSummary(
            message_id=message_id(self.vehicle_id, f"trip{trip}", "trip"),
            vehicle_id=self.vehicle_id,
            trip_id=f"trip{trip}",
            bundle=self.bundle.sha256,
            revision=0,
            started_at=NOW,
            duration_s=15000.0,
            odometer_start=1000.0 * trip,
            odometer_end=1000.0 * trip + 320.0,
            samples=175,
            refused_samples=0,
            error_v=0.02 + trip / 1000,
            band95_v=0.02,
            coverage95=0.95,
            feature_means=[160.0, 5100.0],
            breach=False,
        )
        return msgspec.structs.replace(message, **changes)

    def provisional(self, trip: int, **changes: Any) -> Provisional:
        """What it made for itself on the breach of a trip, from nominal, as its `trip`-th step."""
        prior = calibration.prior(self.bundle.manifest)
        message = Provisional(
            message_id=message_id(self.vehicle_id, f"trip{trip}", "provisional"),
            vehicle_id=self.vehicle_id,
            bundle=self.bundle.sha256,
            base=0,
            step=trip,
            odometer=1000.0 * trip,
            theta=[1.02, 0.0],
            rate=[0.0, 0.0],
            covariance=calibration.upper_triangle(prior.covariance),
            cause=message_id(self.vehicle_id, f"trip{trip}", "breach"),
            trip_id=f"trip{trip}",
            finding="drift",
            points=POINTS,
            nis=40.0,
            error_before_v=0.05,
            error_after_v=0.01,
            made_at=NOW,
            code_version="0.1.0",
        )
        return msgspec.structs.replace(message, **changes)

    def status(self, **changes: Any) -> Status:
        """What it says of itself."""
        message = Status(
            vehicle_id=self.vehicle_id,
            online=True,
            agent_version="0.1.0",
            bundle=self.bundle.sha256,
            revision=0,
            sent_at=NOW,
        )
        return msgspec.structs.replace(message, **changes)

    def acknowledgement(self, row: RevisionRow, verdict: str, **changes: Any) -> Acknowledgement:
        """Its verdict on a revision."""
        message = Acknowledgement(
            message_id=message_id(self.vehicle_id, "", f"ack-{row.number}-{verdict}"),
            vehicle_id=self.vehicle_id,
            revision=row.number,
            revision_hash=row.hash,
            verdict=verdict,  # type: ignore[arg-type]
            reason="" if verdict == "applied" else "worse_on_trace",
            error_before_v=0.06,
            error_after_v=0.01,
            decided_at=NOW,
        )
        return msgspec.structs.replace(message, **changes)


def kind_of(message: Message) -> str:
    """The last level of the message's topic."""
    names = {TripSummary: "trip", Breach: "breach", Status: "status", Acknowledgement: "ack"}
    names |= {Provisional: "provisional"}
    return names[type(message)]


def delivery(message: Message, mid: int = 0, *, retained: bool = False) -> Delivery:
    """A message as the broker delivers it."""
    name = topic(message.vehicle_id, kind_of(message))  # type: ignore[arg-type,union-attr]
    return Delivery(name, encode(message), retained=retained, mid=mid)


@dataclass
class Sent:
    """One publish, decoded."""

    topic: str
    payload: bytes
    retain: bool

    @property
    def receipt(self) -> Receipt:
        return decode(self.payload, Receipt)

    @property
    def revision(self) -> Revision:
        return decode_revision(decode(self.payload, SignedRevision).revision.encode())


@dataclass
class RememberingPublisher:
    """A link that works, unless told not to be `connected` or not to let the broker `confirm`."""

    sent: list[Sent] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    connected: bool = True
    confirms: bool = True
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def publish(
        self, topic: str, payload: bytes, confirmed: Callable[[], None], *, retain: bool = False
    ) -> bool:
        if not self.connected:
            return False
        self.sent.append(Sent(topic, payload, retain))
        if self.confirms:
            confirmed()
        else:
            self.waiting.append(confirmed)
        return True

    def acknowledge(self, delivery: Delivery) -> None:
        if self.connected:
            self.acknowledged.append(delivery.mid)

    def of_kind(self, kind: str) -> list[Sent]:
        return [sent for sent in self.sent if parse_topic(sent.topic)[1] == kind]

    @property
    def numbers(self) -> list[int]:
        """Numbers of the revisions published, in order."""
        return [sent.revision.number for sent in self.of_kind("parameters")]

    @property
    def declined(self) -> dict[str, str]:
        """Reasons by message id."""
        receipts = [sent.receipt for sent in self.of_kind("receipt")]
        return {entry.message_id: entry.reason for r in receipts for entry in r.declined}


class Insides:
    """Ingest and worker over the database in `folder`, or another one, in this thread."""

    def __init__(
        self,
        folder: Path,
        bundle_path: Path,
        database: PostgresUrl | None = None,
        signer: Signer | None = None,
    ) -> None:
        self.bundle = load_bundle(bundle_path)
        self.catalogue: Catalogue = load_catalogue([bundle_path])
        self.path = folder / "twin.db"
        self.store = Store(database or self.path)
        self.key: Signer = signer or Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        self.publisher = RememberingPublisher()
        self.telemetry = Telemetry()
        self.now = NOW
        self.stop = threading.Event()
        with self.store.write() as db:
            public = self.key.public_key()
            revisions.remember_key(db, key_id(public), public.public_bytes_raw().hex())
        self.archive: Archive | None = None
        self.start()

    def start(self) -> None:
        """A new life over the same database: what was in memory is gone."""
        clock = lambda: self.now  # noqa: E731
        author = Author(self.key, "0.1.0")
        calibrations = Calibrations(self.store, self.catalogue, author, clock, self.archive)
        watch = self.telemetry
        self.worker = Worker(self.store, calibrations, self.publisher, clock, author, None, watch)
        self.ingest = Ingest(
            self.store, self.catalogue, self.publisher, clock, self._committed, self.key, watch
        )

    def _committed(self, news: Committed) -> None:
        self.worker.republish(news.republish)
        self.worker.keys.ask(news.behind_on_keys)
        if news.newcomers:
            self.worker.wake()

    def car(self, vehicle_id: str = "car") -> Car:
        return Car(vehicle_id, self.bundle)

    def take(self, *messages: Message | Delivery) -> None:
        """One batch of deliveries, numbered from 1."""
        batch = [
            message if isinstance(message, Delivery) else delivery(message, number)
            for number, message in enumerate(messages, 1)
        ]
        self.ingest.process(batch, self.stop)

    def work(self) -> None:
        """Let the worker finish everything that is due."""
        while self.worker.turn_if_awake():
            pass

    def rows(self, vehicle_id: str = "car") -> list[RevisionRow]:
        """All revisions of a vehicle, the oldest first."""
        with self.store.read() as db:
            found = db.exec(select(RevisionRow).where(RevisionRow.vehicle_id == vehicle_id)).all()
        return sorted(found, key=lambda row: row.number)

    def breach_states(self) -> dict[str, str]:
        with self.store.read() as db:
            return {row.trip_id: row.state for row in db.exec(select(BreachRow))}

    def table(self, kind: type[Any]) -> Sequence[Any]:
        with self.store.read() as db:
            return db.exec(select(kind)).all()


class FailingCommits:
    """Let the next commits of a store that write fail with `error`."""

    def __init__(self, store: Store, error: BaseException, times: int = 1) -> None:
        self._engine, self._error, self.left = store._writer, error, times
        event.listen(self._engine, "commit", self._fail)

    def _fail(self, connection: Connection) -> None:
        reads = connection.get_execution_options().get("postgresql_readonly", False)
        if self.left > 0 and not reads:
            self.left -= 1
            raise self._error

    def close(self) -> None:
        event.remove(self._engine, "commit", self._fail)


def opened(context: Context) -> Context:
    """The same; where it lets nobody in, everybody on this machine may come."""
    return replace(context, entrance=Entrance(None)) if context.entrance is CLOSED else context


@contextmanager
def serving(context: Context, actor: Actor | None = None, port: int = 0) -> Iterator[httpx.Client]:
    """A client of a real server on a port of its own; it takes everybody for `actor`."""
    app = create_app(opened(context))
    if actor is not None:
        for kind in (Viewer, Operator, Admin):
            app.dependency_overrides[get_args(kind)[1].dependency] = lambda: actor
    config = uvicorn.Config(
        app, log_config=None, lifespan="off", timeout_graceful_shutdown=ENDLESS_ENDS_S
    )
    server = uvicorn.Server(config)
    listener = listen("127.0.0.1", port)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=address, trust_env=False) as client:
        yield client
    server.should_exit = True
    thread.join()
    listener.close()


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an answer that must be a problem with this status."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert {"type", "title", "detail", "instance"} <= body.keys()
    return body
