"""From a breach to what the API shows of its trace: measured, predicted, predicted anew.

Must never show a prediction that the vehicle would not have made: aligned with the first sample.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.api import history_schemas as schemas
from cloud.bundles import Catalogue
from cloud.store.tables import Breach, RevisionRow
from common import calibration
from common.alignment import align
from common.batch import extrapolate
from common.calibration import Settings, voltage_band
from common.errors import ContractError
from common.manifest import Manifest
from common.messages import Trace
from common.model import VoltageModel
from common.revision import decode_revision
from common.trace import TraceArrays, from_wire
from common.trip_band import Z95

FloatArray = npt.NDArray[np.float64]
OWN: Final = {"vehicle_id", "trip_id", "bundle", "odometer", "revision", "error_v", "threshold_v"}


def trace_of(
    breach: Breach, running: RevisionRow | None, made: RevisionRow | None, catalogue: Catalogue
) -> schemas.TripTrace | None:
    """None where its bundle is unknown here or its trace is not kept any more."""
    manifest = catalogue.find(breach.bundle)
    arrays = _arrays(breach, manifest) if manifest else None
    if manifest is None or arrays is None:
        return None
    model = catalogue.model(breach.bundle)
    fits = running is not None and running.bundle == breach.bundle
    before = _band(running if fits else None, breach.odometer, arrays, model, manifest)
    after = _band(made, breach.odometer, arrays, model, manifest) if made else None
    return schemas.TripTrace(
        **breach.model_dump(include=OWN),
        odometer_unit=manifest.odometer_unit,
        recalibrated_revision=made.number if made else None,
        outcome=breach.state,  # type: ignore[arg-type]
        outcome_reason=breach.reason,
        predicted_error_v=_error_v(before, arrays),
        recalibrated_error_v=_error_v(after, arrays) if after else None,
        points=[
            schemas.TracePoint(
                time_s=float(arrays.time_s[i]),
                features=dict(
                    zip(manifest.feature_names, arrays.features[i].tolist(), strict=True)
                ),
                measured_v=float(arrays.voltage_v[i]),
                predicted=_item(before, i),
                recalibrated=_item(after, i) if after else None,
            )
            for i in range(len(arrays.time_s))
        ],
    )


def _arrays(breach: Breach, manifest: Manifest) -> TraceArrays | None:
    try:
        return from_wire(msgspec.json.decode(breach.trace, type=Trace), manifest)
    except (msgspec.MsgspecError, ContractError):
        return None


def _band(
    row: RevisionRow | None,
    odometer: float,
    arrays: TraceArrays,
    model: VoltageModel,
    manifest: Manifest,
) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation in volts along the trace, by a revision (None: the prior)."""
    known = (
        calibration.estimate_of(decode_revision(row.content))
        if row
        else calibration.prior(manifest)
    )
    there = extrapolate(known, manifest, odometer)
    trip = align(there, arrays.features[0], float(arrays.voltage_v[0]), model, manifest)
    return voltage_band(trip, arrays.features, model, manifest, Settings())


def _item(band: tuple[FloatArray, FloatArray], i: int) -> schemas.PredictedBand:
    mean, std = float(band[0][i]), float(band[1][i])
    return schemas.PredictedBand(
        voltage_v=mean, band95_lower_v=mean - Z95 * std, band95_upper_v=mean + Z95 * std
    )


def _error_v(band: tuple[FloatArray, FloatArray], arrays: TraceArrays) -> float:
    return float(np.abs(band[0] - arrays.voltage_v).mean())
