"""The closing table of a run: label and text, and the same as numbers for programs.

Pure. Must never round what `report.json` carries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.manifest import Manifest
from demo.evaluate import Evaluation
from demo.loop import LoopRun
from demo.results import TripRow

LAST_TRIPS = 20


def figures(
    found: Evaluation, run: LoopRun, streaming: int, manifest: Manifest
) -> dict[str, object]:
    """Every number of the run, by name with its unit."""
    trips = found.trips
    last = _last(trips)
    sent = sum(outcome.sent_bytes for outcome in run.outcomes)
    received = sum(outcome.received_bytes for outcome in run.outcomes)
    latencies = [s for o in run.outcomes for s in o.statistics.apply_latencies_s]
    return {
        "vehicles": len({trip.vehicle_id for trip in trips}),
        "trips": len(trips),
        "samples": sum(outcome.samples for outcome in run.outcomes),
        "threshold_v": manifest.error_threshold_v,
        "error_frozen_v": _mean([trip.error_frozen_v for trip in trips]),
        "error_v": _mean([trip.error_v for trip in trips]),
        f"error_frozen_last_{LAST_TRIPS}_v": _mean([trip.error_frozen_v for trip in last]),
        f"error_last_{LAST_TRIPS}_v": _mean([trip.error_v for trip in last]),
        "breaches": sum(trip.breach for trip in trips),
        "updates": sum(trip.updated for trip in trips),
        "updates_per_1000_trips": 1000 * _mean([float(trip.updated) for trip in trips]),
        "revisions_refused": sum(row.verdict == "refused" for row in found.revisions),
        "coverage_of_95_band": found.coverage95,
        "breach_to_applied_p50_ms": 1000 * _quantile(latencies, 0.5),
        "breach_to_applied_p99_ms": 1000 * _quantile(latencies, 0.99),
        "sent_bytes": sent,
        "received_bytes": received,
        "streaming_bytes": streaming,
        "share_of_streaming": (sent + received) / streaming,
        **_health(trips),
        "loop_seconds": run.seconds,
        "agents_peak_mb": run.agents_peak_mb,
        "cloud_peak_mb": run.cloud_peak_mb,
        "broker": run.broker,
    }


def table(values: dict[str, object]) -> dict[str, str]:
    """The rows that a person reads."""
    v = {name: value for name, value in values.items() if isinstance(value, (int, float))}
    rows = {
        "vehicles, trips, samples": f"{v['vehicles']:,}, {v['trips']:,}, {v['samples']:,}",
        "error without updates, all trips": _volts(v["error_frozen_v"]),
        "error with updates, all trips": _volts(v["error_v"]),
        f"error without updates, last {LAST_TRIPS} trips": _volts(
            v[f"error_frozen_last_{LAST_TRIPS}_v"]
        ),
        f"error with updates, last {LAST_TRIPS} trips": _volts(v[f"error_last_{LAST_TRIPS}_v"]),
        "updates per 1,000 trips": f"{v['updates_per_1000_trips']:.0f}",
        "revisions refused by a vehicle": f"{v['revisions_refused']}",
        "measured inside the 95 % band": f"{100 * v['coverage_of_95_band']:.1f} %",
        "breach to applied, p50 / p99": (
            f"{v['breach_to_applied_p50_ms']:.0f} / {v['breach_to_applied_p99_ms']:.0f} ms"
        ),
        "bytes, both ways": f"{(v['sent_bytes'] + v['received_bytes']) / 1e6:.2f} MB",
        "streaming every sample": f"{v['streaming_bytes'] / 1e6:.2f} MB",
        "share of streaming": f"{100 * v['share_of_streaming']:.1f} %",
    }
    if "health_error_points" in v:
        rows["state of health from truth, mean / p95"] = (
            f"{v['health_error_points']:.2f} / {v['health_error_p95_points']:.2f} points"
        )
        rows["state of health from truth, last trip"] = (
            f"{v['health_error_at_end_points']:.2f} points"
        )
    rows["time of the loop"] = f"{v['loop_seconds']:.1f} s"
    peaks = f"{v['agents_peak_mb']:.0f} / {v['cloud_peak_mb']:.0f} MB"
    rows["peak memory, demonstration / cloud"] = peaks
    return rows


def _health(trips: Sequence[TripRow]) -> dict[str, float]:
    errors, last = [], {}
    for trip in trips:
        if trip.health is not None and trip.health_truth is not None:
            errors.append(100 * abs(trip.health - trip.health_truth))
            last[trip.vehicle_id] = errors[-1]
    if not errors:
        return {}
    return {
        "health_error_points": _mean(errors),
        "health_error_p95_points": _quantile(errors, 0.95),
        "health_error_at_end_points": _mean(list(last.values())),
    }


def _last(trips: Sequence[TripRow]) -> list[TripRow]:
    by_vehicle: dict[str, list[TripRow]] = {}
    for trip in trips:
        by_vehicle.setdefault(trip.vehicle_id, []).append(trip)
    return [trip for rows in by_vehicle.values() for trip in rows[-LAST_TRIPS:]]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")


def _volts(value: float) -> str:
    return f"{value:.4f} V"
