"""From rows to what the API answers.

Must never query beyond what one item needs, and never show an estimate without its state.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
from sqlmodel import Session

from cloud.api import schemas
from cloud.bundles import Catalogue
from cloud.store import evidence, revisions
from cloud.store.tables import (
    ProvisionalRow,
    Quarantine,
    RevisionRow,
    Trip,
    Vehicle,
)
from cloud.store.vehicle_pages import Listed
from common.calibration import Estimate, estimate_of
from common.estimate_state import Judgement, judge
from common.manifest import Manifest
from common.messages import Provisional, decode
from common.revision import Revision, decode_revision


@dataclass(frozen=True)
class Standing:
    """A vehicle's estimate as it stands: at its last odometer unless another was asked for."""

    manifest: Manifest
    bundle: str
    revision: int
    estimate: Estimate
    judgement: Judgement


def standing(
    db: Session, vehicle: Vehicle, catalogue: Catalogue, now: float, odometer: float | None = None
) -> Standing | None:
    """What is known of a vehicle's battery; None when its bundle is unknown here."""
    manifest = catalogue.find(vehicle.bundle)
    if manifest is None or vehicle.bundle is None:
        return None
    row = revisions.newest_standing(db, vehicle.vehicle_id, vehicle.bundle)
    revision = decode_revision(row.content) if row else None
    at = vehicle.odometer if odometer is None else odometer
    found = evidence.gather(vehicle, revision, manifest, now)
    return Standing(
        manifest=manifest,
        bundle=vehicle.bundle,
        revision=row.number if row else 0,
        estimate=evidence.estimate_at(revision, manifest, at),
        judgement=judge(vehicle.estimate_state, found),  # type: ignore[arg-type]
    )


def estimate_fields(vehicle: Vehicle, known: Standing) -> dict[str, Any]:
    """What stands beside every estimate: whose, how far to trust it, and where it was read."""
    return {
        "vehicle_id": vehicle.vehicle_id,
        "state": known.judgement.state,
        "state_reason": known.judgement.reason,
        "revision": known.revision,
        "odometer": known.estimate.odometer,
        "odometer_unit": known.manifest.odometer_unit,
    }


def listed_fields(listed: Listed, catalogue: Catalogue, now: float) -> dict[str, Any]:
    """The fields of a VehicleSummary: what the vehicle's own row says, its state judged by that."""
    vehicle = listed.vehicle
    manifest = catalogue.find(vehicle.bundle)
    found = judge(vehicle.estimate_state, evidence.noted(vehicle, now))  # type: ignore[arg-type]
    return {
        **vehicle.model_dump(),
        "state": found.state if manifest else None,
        "state_reason": found.reason if manifest else "its bundle is unknown here",
        "first_seen_at": utc(vehicle.first_seen_at),
        "last_seen_at": utc(vehicle.last_seen_at),
        "last_seen_age_s": _age_s(vehicle.last_seen_at, now),
        "last_trip_received_at": utc(vehicle.last_trip_received_at),
        "last_trip_age_s": _age_s(vehicle.last_trip_received_at, now),
        "bundle_name": manifest.name if manifest else None,
        "newest_revision": listed.newest_revision,
        "odometer_unit": manifest.odometer_unit if manifest else None,
    }


def vehicle_detail(
    listed: Listed, known: Standing | None, catalogue: Catalogue, now: float
) -> schemas.VehicleDetail:
    """A vehicle with what a prediction needs; its state is judged where it stands now."""
    manifest = known.manifest if known else None
    fields = listed_fields(listed, catalogue, now)
    if known is not None:
        fields |= {"state": known.judgement.state, "state_reason": known.judgement.reason}
    features = manifest.features if manifest else []
    return schemas.VehicleDetail(
        **fields,
        error_threshold_v=manifest.error_threshold_v if manifest else None,
        cutoff_voltage_v=manifest.cutoff_voltage_v if manifest else None,
        features=[
            schemas.Feature(name=f.name, unit=f.unit, minimum=f.minimum, maximum=f.maximum)
            for f in features
        ],
    )


def trip_item(trip: Trip, catalogue: Catalogue) -> schemas.TripItem:
    """A trip."""
    manifest = catalogue.find(trip.bundle)
    means = msgspec.json.decode(trip.feature_means, type=list[float])
    fits = manifest is not None and len(manifest.features) == len(means)
    named = dict(zip(manifest.feature_names, means, strict=True)) if manifest and fits else None
    return schemas.TripItem(
        **trip.model_dump(exclude={"feature_means", "started_at", "received_at"}),
        started_at=some_utc(trip.started_at),
        received_at=some_utc(trip.received_at),
        odometer_unit=manifest.odometer_unit if manifest else None,
        feature_means=named,
    )


def revision_fields(row: RevisionRow, revision: Revision, catalogue: Catalogue) -> dict[str, Any]:
    """The fields of a RevisionItem."""
    manifest = catalogue.find(row.bundle)
    return {
        **row.model_dump(include={"number", "hash", "bundle", "odometer"}),
        "parent_hash": revision.parent_hash,
        "base": revision.base,
        "prior_version": revision.prior_version,
        "odometer_unit": manifest.odometer_unit if manifest else None,
        "cause": msgspec.to_builtins(revision.cause),
        "created_at": utc(row.created_at),
        "published_at": utc(row.published_at),
        "verdict": row.verdict,
        "verdict_reason": row.verdict_reason,
        "verdict_at": utc(row.verdict_at),
        "confirmed_at": utc(row.confirmed_at),
        "approval": row.approval,
    }


def revision_item(row: RevisionRow, catalogue: Catalogue) -> schemas.RevisionItem:
    """A revision with its lineage."""
    return schemas.RevisionItem(**revision_fields(row, decode_revision(row.content), catalogue))


def revision_detail(row: RevisionRow, catalogue: Catalogue) -> schemas.RevisionDetail:
    """A revision with its parameters by name."""
    revision = decode_revision(row.content)
    own = {"key_id", "signature", "verdict_detail", "trace_error_before_v", "trace_error_after_v"}
    own |= {"next_trip_error_before_v", "next_trip_error_after_v"}
    return schemas.RevisionDetail(
        **revision_fields(row, revision, catalogue),
        **row.model_dump(include=own),
        parameters=_parameters(revision, catalogue.find(row.bundle)),
        code_version=revision.code_version,
    )


def provisional_item(
    row: ProvisionalRow, replaced_by: int | None, catalogue: Catalogue
) -> schemas.ProvisionalItem:
    """What a vehicle made for itself, beside the chain."""
    made = decode(row.content, Provisional)
    manifest = catalogue.find(row.bundle)
    names = ["base", "step", "bundle", "odometer", "trip_id", "finding", "points", "nis"]
    names += ["error_before_v", "error_after_v", "time_known", "code_version"]
    return schemas.ProvisionalItem(
        **{name: getattr(made, name) for name in names},
        odometer_unit=manifest.odometer_unit if manifest else None,
        cause_message_id=made.cause,
        parameters=_parameters(made, manifest),
        made_at=some_utc(made.made_at),
        received_at=some_utc(row.received_at),
        replaced_by=replaced_by,
    )


def _parameters(
    revision: Revision | Provisional, manifest: Manifest | None
) -> list[schemas.ParameterItem]:
    count = len(revision.theta)
    stds = np.sqrt(np.diag(estimate_of(revision).covariance)).tolist()
    declared = manifest.parameters if manifest else [None] * count
    return [
        schemas.ParameterItem(
            name=known.name if known else None,
            unit=known.unit if known else None,
            value=revision.theta[i],
            std=stds[i],
            nominal=known.nominal if known else None,
            rate=revision.rate[i],
            rate_std=stds[count + i],
            rate_unit=f"{known.unit or '1'}/{manifest.odometer_unit}"
            if known and manifest
            else None,
        )
        for i, known in enumerate(declared)
    ]


def quarantine_item(row: Quarantine) -> schemas.QuarantineItem:
    """A refused message."""
    return schemas.QuarantineItem(
        **row.model_dump(include={"id", "topic", "error", "reason", "payload_bytes", "times"}),
        received_at=some_utc(row.received_at),
        payload_head=row.payload.decode(errors="replace"),
    )


def _age_s(unix_s: float | None, now: float) -> int | None:
    return None if unix_s is None else max(round(now - unix_s), 0)


def utc(unix_s: float | None) -> datetime | None:
    """A stored time as the API shows it."""
    return None if unix_s is None else some_utc(unix_s)


def some_utc(unix_s: float) -> datetime:
    """A stored time that is always known."""
    return datetime.fromtimestamp(unix_s, UTC)
