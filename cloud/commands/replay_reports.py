"""What the command line writes of recalibrations and pins, and shows of one that is not ordered.

Must never touch a revision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlmodel import Session

import cloud
from cloud.bundles import Catalogue, load_catalogue
from cloud.calibration import fleet_priors as priors
from cloud.calibration.replays import Step, replayed, with_traces
from cloud.calibration.revising import Author
from cloud.commands.reports import show
from cloud.config import load_config
from cloud.store import fleet_priors, pins, recalibration_orders, revisions
from cloud.store.audit_tables import Pin, RecalibrationOrder
from cloud.store.database import Reader, Store
from cloud.store.recalibration_orders import Source
from cloud.store.tables import Vehicle
from cloud.traces.archive import archive_of
from common import calibration
from common.calibration import aligned_error_v, estimate_of, extrapolate
from common.messages import Trace
from common.revision import decode_revision
from common.trace import from_wire


@contextmanager
def _writing(config: Path) -> Iterator[Session]:
    with closing(Store(load_config(config).database())) as store, store.write() as db:
        yield db


def knows(config: Path, vehicle_id: str) -> bool:
    """Whether there is such a vehicle. Raises StoreError."""
    with closing(Reader(load_config(config).database())) as reader, reader.read() as db:
        return db.get(Vehicle, vehicle_id) is not None


def order_recalibration(
    config: Path, vehicle_id: str, start: int, by: str, why: str, now: float
) -> RecalibrationOrder:
    """Keep the order. Raises StoreError, RecalibrationError."""
    with _writing(config) as db:
        return recalibration_orders.place(db, _order(vehicle_id, start, by, why, now))


def order_pin(config: Path, vehicle_id: str, to: int, by: str, why: str, now: float) -> Pin:
    """Keep the order. Raises StoreError, PinError."""
    wanted = Pin(
        vehicle_id=vehicle_id, to_revision=to, ordered_by=by[:64], why=why[:256], ordered_at=now
    )
    with _writing(config) as db:
        return pins.place(db, wanted)


def end_pin(config: Path, vehicle_id: str, by: str, why: str, now: float) -> Pin:
    """End it. Raises StoreError, PinError."""
    with _writing(config) as db:
        return pins.end(db, vehicle_id, by, why, now)


def rehearse(config: Path, vehicle_id: str, start: int, now: float, *, as_json: bool) -> None:
    """Print what each breach would bring.

    Raises StoreError, RecalibrationError, TraceFileError, TraceArchiveError.
    """
    settings = load_config(config)
    catalogue = load_catalogue([settings.path(name) for name in settings.bundles.paths])
    nobody = Author(Ed25519PrivateKey.generate(), cloud.__version__)
    order = _order(vehicle_id, start, "nobody", "a rehearsal", now)
    with closing(Reader(settings.database())) as reader, reader.read() as db:
        source = with_traces(db, archive_of(settings), recalibration_orders.source(db, order))
        bundle = source.vehicle.bundle or ""
        row = fleet_priors.by_version(db, bundle, fleet_priors.newest_version(db, bundle))
        prior = priors.read(row) if row is not None else None
        steps = replayed(order, source, catalogue, prior, nobody, now)
        present = revisions.newest_for(db, vehicle_id)
    present_content = present.content if present is not None else None
    rows = _rows(steps, source, catalogue, present_content)
    columns = ["odometer", "trip_id", "would_bring", "theta", "error_now_v", "error_then_v"]
    show(rows, columns, as_json=as_json)


def _order(vehicle_id: str, start: int, by: str, why: str, now: float) -> RecalibrationOrder:
    return RecalibrationOrder(
        vehicle_id=vehicle_id,
        from_revision=start,
        ordered_by=by[:64],
        why=why[:256],
        ordered_at=now,
    )


def _rows(
    steps: Sequence[Step], source: Source, catalogue: Catalogue, present: bytes | None
) -> Iterator[dict[str, Any]]:
    """The errors on each trace: by what stands now, and by what would come last."""
    bundle = source.vehicle.bundle or ""
    manifest, model = catalogue.manifest(bundle), catalogue.model(bundle)
    made = [step.row for step in steps if step.row is not None]

    def error(content: bytes | None, step: Step) -> float:
        nominal = calibration.prior(manifest)
        known = nominal if content is None else estimate_of(decode_revision(content))
        trace = from_wire(msgspec.json.decode(step.breach.trace, type=Trace), manifest)
        there = extrapolate(known, manifest, step.breach.odometer)
        return aligned_error_v(there, trace, model, manifest)

    for step in steps:
        theta = decode_revision(step.row.content).theta if step.row is not None else None
        yield {
            "odometer": step.breach.odometer,
            "trip_id": step.breach.trip_id,
            "would_bring": "a revision" if step.row is not None else step.reason,
            "theta": theta,
            "error_now_v": error(present, step),
            "error_then_v": error(made[-1].content if made else present, step),
        }
