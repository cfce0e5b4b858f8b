"""From a table of trips to a bundle: read, fit, write the graph, check it, rank, select, save.

The library function behind `twin-cloud train` and the demos. Must never read a clock: the date is
passed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from cloud.training.bundle_writer import in_memory, require_writable, write_bundle
from cloud.training.candidates import Candidate, Overrides, Ranges, list_candidates
from cloud.training.contract_check import contract_problem, float32_tolerance_v
from cloud.training.errors import ForwardMismatchError, OptionError, TrainingRecordError
from cloud.training.fit import Errors, Fit, fit_network
from cloud.training.manifest_builder import build_manifest, declare
from cloud.training.network import NETWORK_FILE, TrainingRecord, encode_record, load_record
from cloud.training.selection import Choice
from cloud.training.sensitivity import Ranking, candidates_model, rank
from cloud.training.settings import TrainingSettings
from cloud.training.sobol import SobolSettings
from cloud.training.splits import typical_rows
from cloud.training.table import TripTable, read_trips
from cloud.training.tflite_writer import write_tflite
from cloud.training.trip_scatter import with_trip_scatter
from common.bundle import Bundle, load_bundle
from common.cutoff import usable_until_cutoff
from common.manifest import Manifest, Sensitivity
from common.model import VoltageModel

FloatArray = npt.NDArray[np.float64]

GRID_ROWS: Final = 4096
FORWARD_STEPS: Final = 4.0


@dataclass(frozen=True)
class TrainingReport:
    """What a training run gave: errors in volts on rows it saw and on trips it did not see.

    `forward_error_v` is the largest difference between the .tflite and scikit-learn's own forward
    pass over a grid. `warnings` are sentences for the user.
    """

    bundle: Bundle
    rows: int
    vehicles: int
    trips: int
    held_out_trips: int
    train: Errors
    held_out: Errors
    forward_error_v: float
    warnings: tuple[str, ...]

    @property
    def sensitivity(self) -> Sensitivity:
        """The indices that the bundle's manifest holds."""
        return self.bundle.manifest.sensitivity or Sensitivity(samples=0, indices=[])


def train_bundle(settings: TrainingSettings, table: Path, out: Path, today: date) -> TrainingReport:
    """Train on the table's chosen trips and write the bundle folder `out` in one step.

    Raises TableError, OptionError, ForwardMismatchError or OutputExistsError and then writes
    nothing.
    """
    require_writable(out)
    trips = read_trips(table, settings.columns, settings.trips)
    declared = declare(settings, trips)
    fit = fit_network(trips, settings.hidden, settings.seed)
    record = _record(settings, trips, fit, declared.ranges)
    manifest = build_manifest(settings, trips, fit, declared, today)
    candidates = candidates_of(manifest, record, settings.choice)
    model = candidates_model(manifest, record, candidates)
    forward_error_v = check_forward(model, candidates, trips.features, fit)
    manifest, warnings = _with_reachable_health(manifest, model, candidates, settings)
    ranking = rank(manifest, record, candidates, settings.choice, settings.sobol)
    return TrainingReport(
        bundle=finish(manifest, record, ranking, out),
        rows=len(trips.target),
        vehicles=trips.vehicles,
        trips=trips.trips,
        held_out_trips=fit.held_out_trips,
        train=fit.train,
        held_out=fit.held_out,
        forward_error_v=forward_error_v,
        warnings=warnings,
    )


def rank_again(
    bundle: Path, choice: Choice, sobol: SobolSettings, overrides: Overrides
) -> tuple[Manifest, TrainingRecord, Ranking]:
    """Rank and select anew for a trained bundle; priors given at training hold unless overridden.

    Raises BundleError, TrainingRecordError, UnknownCandidateError.
    """
    manifest = load_bundle(bundle).manifest
    kept = load_record(bundle)
    if kept.network.input_count != len(manifest.features):
        problem = "it has another number of features than the manifest"
        raise TrainingRecordError(bundle / NETWORK_FILE, problem)
    merged = Overrides.from_json(kept.overrides).updated(overrides).as_json()
    record = replace(kept, overrides=merged)
    candidates = candidates_of(manifest, record, choice)
    return manifest, record, rank(manifest, record, candidates, choice, sobol)


def finish(manifest: Manifest, record: TrainingRecord, ranking: Ranking, out: Path) -> Bundle:
    """Write the graph with the chosen parameters, judge it by the contract, save the bundle."""
    model = write_tflite(record.network, [candidate.target for candidate in ranking.chosen])
    final = msgspec.structs.replace(
        manifest,
        model_sha256=hashlib.sha256(model).hexdigest(),
        parameters=[candidate.parameter for candidate in ranking.chosen],
        sensitivity=ranking.sensitivity,
    )
    final = _with_scatter(final, model, record)
    problem = contract_problem(in_memory(final, model, out))
    if problem:
        raise OptionError("parameters", problem.what, "Choose other parameters.")
    return write_bundle(out, final, model, {NETWORK_FILE: encode_record(record)})


def _with_scatter(manifest: Manifest, model: bytes, record: TrainingRecord) -> Manifest:
    """What the kept training trips show of the spread from trip to trip; old records have none."""
    if not len(record.voltage_v):
        return manifest
    given = Overrides.from_json(record.overrides).trip_std
    graph = VoltageModel(in_memory(manifest, model, Path("the chosen parameters")))
    return with_trip_scatter(
        manifest, graph, record.trips(), record.vehicle_of_trip.tolist(), list(given)
    )


def candidates_of(manifest: Manifest, record: TrainingRecord, choice: Choice) -> list[Candidate]:
    """All candidates of a trained network with the priors kept in its record."""
    return list_candidates(
        manifest.features,
        manifest.target,
        record.network.last_hidden_count,
        Ranges(record.feature_ranges, record.target_range),
        Overrides.from_json(record.overrides),
        choice.names,
    )


def check_forward(
    model: VoltageModel, candidates: Sequence[Candidate], rows: FloatArray, fit: Fit
) -> float:
    """Largest difference in volts to scikit-learn's forward pass, over training rows and a grid.

    Both get the features as float32 holds them. Allowed are 1e-5 V, for voltages of hundreds of
    volts 4 float32 steps. Raises ForwardMismatchError.
    """
    rng = np.random.default_rng(0)
    grid = rng.uniform(rows.min(axis=0), rows.max(axis=0), (GRID_ROWS, rows.shape[1]))
    features = np.concatenate([rows, grid]).astype(np.float32).astype(np.float64)
    expected = fit.library_forward(features)
    nominal = [candidate.parameter.nominal for candidate in candidates]
    found_v = float(np.abs(model.predict(features, nominal) - expected).max())
    allowed_v = float32_tolerance_v(expected, FORWARD_STEPS)
    if not found_v <= allowed_v:
        raise ForwardMismatchError(found_v, allowed_v)
    return found_v


def _record(
    settings: TrainingSettings, table: TripTable, fit: Fit, ranges: Ranges
) -> TrainingRecord:
    kept = typical_rows(table.trip, table.target, np.random.default_rng(settings.seed))
    numbers, trip = np.unique(table.trip[kept], return_inverse=True)
    return TrainingRecord(
        network=fit.network,
        feature_ranges=ranges.features,
        target_range=ranges.target,
        rows=table.features[kept],
        trip=trip.astype(np.intp),
        voltage_v=table.target[kept],
        vehicle_of_trip=table.vehicle_of_trip[numbers],
        overrides=settings.overrides.as_json(),
    )


def _with_reachable_health(
    manifest: Manifest,
    model: VoltageModel,
    candidates: Sequence[Candidate],
    settings: TrainingSettings,
) -> tuple[Manifest, tuple[str, ...]]:
    """Without a health section if the new battery never gets empty: the ratio would be a lie."""
    health = manifest.health
    if health is None:
        return manifest, ("No state of health: name the feature to sweep with --health-sweep.",)
    nominal = np.array([[candidate.parameter.nominal for candidate in candidates]])
    usable = float(usable_until_cutoff(nominal, health, model, manifest)[0])
    if health.start < usable < health.stop:
        return manifest, ()
    problem = (
        f"the new battery does not cross {manifest.cutoff_voltage_v:g} V while "
        f"{health.swept_feature} grows from {health.start:g} to {health.stop:g}"
    )
    if settings.health_sweep is not None:
        raise OptionError("health-sweep", problem, "Give another --cutoff-voltage or --reference.")
    warning = f"No state of health: {problem}. Give --cutoff-voltage."
    return msgspec.structs.replace(manifest, health=None), (warning,)
