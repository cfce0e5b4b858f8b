"""Whether a bundle would serve, asked in a process of its own: a hostile model may crash it.

`python -m edge_agent.bundle_update.self_test < question`: one JSON answer on standard output. Must
never run inside the agent.
"""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from common import calibration
from common.bundle import Bundle, load_bundle
from common.bundle_check import range_problem
from common.errors import TwinError
from common.manifest import Feature, Manifest
from common.messages import Breach
from common.model import VoltageModel
from common.trace import TraceArrays, from_wire

ABSURD_FACTOR: Final = 3.0
ABSURD_THRESHOLDS: Final = 2.0
"""On trips of this very car, both models uncalibrated: so much worse is not another opinion."""
CPU_S: Final = 60
ADDRESS_SPACE_BYTES: Final = 2 * 1024**3


class Question(msgspec.Struct, frozen=True):
    """The folders of the new bundle and of the one that runs, and breaches kept under that one."""

    folder: str
    bundle: str
    running: str
    breaches: list[Breach]


class Answer(msgspec.Struct, frozen=True):
    """What is wrong; empty: nothing."""

    problem: str


def problem_of(question: Question) -> str:
    """What is wrong with the new bundle; empty: nothing."""
    try:
        new, running = load_bundle(Path(question.folder)), load_bundle(Path(question.running))
        if new.sha256 != question.bundle:
            return f"it is bundle {new.sha256[:12]}, not the one announced"
        model = VoltageModel(new)
        found = range_problem(model, new.manifest)
    except TwinError as error:
        return str(error)
    return found or _problem_on_trips(new, model, running, question.breaches)


def _problem_on_trips(
    new: Bundle, model: VoltageModel, running: Bundle, breaches: list[Breach]
) -> str:
    """Both with nominal parameters, aligned with the trip's start: like with like.

    A new model may well be worse than the old one with its calibrated parameters: it has not been
    calibrated yet. Trips of features that the new model does not share say nothing.
    """
    columns = _shared_columns(running.manifest, new.manifest)
    old_model = VoltageModel(running)
    pairs = []
    for breach in breaches if columns is not None else []:
        try:
            trace = from_wire(breach.trace, running.manifest)
        except TwinError:
            continue
        renamed = TraceArrays(trace.time_s, trace.features[:, columns], trace.voltage_v)
        pairs.append(
            (
                _nominal_error(renamed, breach.odometer, model, new.manifest),
                _nominal_error(trace, breach.odometer, old_model, running.manifest),
            )
        )
    if not pairs:
        return ""
    ours, theirs = np.mean(pairs, axis=0)
    allowed = ABSURD_FACTOR * theirs + ABSURD_THRESHOLDS * new.manifest.error_threshold_v
    if ours <= allowed:
        return ""
    return (
        f"on {len(pairs)} kept trips of this car its error is {ours:.4f} V, the present model's "
        f"{theirs:.4f} V, both uncalibrated"
    )


def _nominal_error(
    trace: TraceArrays, odometer: float, model: VoltageModel, manifest: Manifest
) -> float:
    there = calibration.extrapolate(calibration.prior(manifest), manifest, odometer)
    return calibration.aligned_error_v(there, trace, model, manifest)


def _shared_columns(old: Manifest, new: Manifest) -> list[int] | None:
    """Where each feature of the new model stands in the old one's traces; None: one does not."""
    places = {_meaning(feature): index for index, feature in enumerate(old.features)}
    columns = [places.get(_meaning(feature)) for feature in new.features]
    return None if None in columns else [column for column in columns if column is not None]


def _meaning(feature: Feature) -> tuple[object, ...]:
    average = feature.moving_average
    return (
        feature.name,
        feature.unit,
        (average.signal, average.time_constant_s) if average else None,
    )


def _bound_resources() -> None:
    """A model that never ends, or asks for all memory, must not take the car's.

    Where a sandbox forbids to say so, its own bounds and the agent's deadline hold.
    """
    for which, bound in (
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_AS, ADDRESS_SPACE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        with suppress(OSError, ValueError):  # ValueError: a lower one holds already
            resource.setrlimit(which, (bound, bound))


def main() -> int:
    """Read the question, write the answer."""
    _bound_resources()
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    answer = msgspec.json.encode(Answer(problem_of(question)))
    sys.stdout.buffer.write(answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
