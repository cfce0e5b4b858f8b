"""Fit the small tanh network with scikit-learn, and measure its error on trips it never saw.

Pure and seeded: the same table, layers and seed give the same network. Until the held-out error is
measured, the held-out trips take part in nothing: restarts are chosen by an inner split of the
others. Then training goes on with all trips: a table of ten trips cannot spare two of them, one of
which may be the only one that drove the battery low.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cloud.training.errors import TableError
from cloud.training.network import Network
from cloud.training.splits import IntArray, held_out_rows
from cloud.training.table import TripTable

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

RESTARTS: Final = 4
RESTART_ITERATIONS: Final = 250
FINAL_ITERATIONS: Final = 2000
ALL_ITERATIONS: Final = 1000
# Weak weight decay: keeps the net smooth between and slightly beyond the training trips.
WEIGHT_DECAY: Final = 1e-3
TOLERANCE: Final = 1e-7
SMALLEST_SCALE: Final = 0.01  # of a feature's largest value


@dataclass(frozen=True)
class Errors:
    """Root mean square and mean absolute error in volts."""

    rmse_v: float
    mae_v: float


@dataclass(frozen=True, eq=False)
class Fit:
    """A network trained on all trips; `library_forward` is scikit-learn's prediction, volts.

    `held_out` is the error, on trips that it had not seen, of the network that training went on
    from; `unmended_v` what of it a gain and an offset for each of these trips leave, the median.
    """

    network: Network
    library_forward: Callable[[FloatArray], FloatArray]
    train: Errors
    held_out: Errors
    held_out_trips: int
    unmended_v: float


def fit_network(table: TripTable, hidden: tuple[int, ...], seed: int) -> Fit:
    """Train on four fifths of the trips, measure the error on the rest, go on with all of them.

    Raises TableError when the voltage never changes or the rows are fewer than the weights.
    """
    rng = np.random.default_rng(seed)
    held = held_out_rows(table.trip, rng)
    _require_enough(table, int((~held).sum()), hidden)
    scaling = _Scaling.of(table.features[~held], table.target[~held])
    validation = held_out_rows(table.trip[~held], rng)
    x, y = scaling.inputs(table.features[~held]), scaling.output(table.target[~held])
    regressor = _best_restart(x, y, validation, hidden, seed)
    _train(regressor, x, y, FINAL_ITERATIONS)

    def forward(features: FloatArray) -> FloatArray:
        predicted: FloatArray = regressor.predict(scaling.inputs(features))
        return predicted * scaling.output_scale + scaling.output_mean

    predicted = forward(table.features[held])
    unseen = _errors(predicted - table.target[held])
    unmended_v = _unmended_v(predicted, table.target[held], table.trip[held])
    _train(regressor, scaling.inputs(table.features), scaling.output(table.target), ALL_ITERATIONS)
    return Fit(
        network=_network(regressor, scaling),
        library_forward=forward,
        train=_errors(forward(table.features) - table.target),
        held_out=unseen,
        held_out_trips=len(np.unique(table.trip[held])),
        unmended_v=unmended_v,
    )


def _unmended_v(predicted: FloatArray, measured: FloatArray, trip: IntArray) -> float:
    """Root mean square that is left of each trip when it has a gain and an offset of its own.

    A calibration will take as much, so that is what to expect of the model on an unknown trip.
    """
    left = []
    for number in np.unique(trip):
        own = trip == number
        columns = np.column_stack([predicted[own], np.ones(own.sum())])
        affine = np.linalg.lstsq(columns, measured[own], rcond=None)[0]
        left.append(np.sqrt(np.square(columns @ affine - measured[own]).mean()))
    return float(np.median(left))


@dataclass(frozen=True, eq=False)
class _Scaling:
    input_mean: FloatArray
    input_scale: FloatArray
    output_mean: float
    output_scale: float

    @classmethod
    def of(cls, features: FloatArray, target: FloatArray) -> _Scaling:
        # A feature that hardly changed must not have its noise blown up to the size of a signal.
        size = np.abs(features).max(axis=0)
        scale = np.maximum(features.std(axis=0), SMALLEST_SCALE * np.where(size > 0, size, 1.0))
        return cls(
            # A mean that float32 holds exactly costs the .tflite nothing when it is subtracted.
            input_mean=features.mean(axis=0).astype(np.float32).astype(np.float64),
            input_scale=scale,
            output_mean=float(target.mean()),
            output_scale=float(target.std()),
        )

    def inputs(self, features: FloatArray) -> FloatArray:
        return (features - self.input_mean) / self.input_scale

    def output(self, target: FloatArray) -> FloatArray:
        return (target - self.output_mean) / self.output_scale


def _best_restart(
    x: FloatArray, y: FloatArray, validation: BoolArray, hidden: tuple[int, ...], seed: int
) -> Any:
    """The restart with the smallest error on the validation rows, lightly trained on the others."""
    candidates = [_regressor(hidden, seed + restart) for restart in range(RESTARTS)]
    for regressor in candidates:
        _train(regressor, x[~validation], y[~validation], RESTART_ITERATIONS)
    return min(
        candidates, key=lambda r: float(np.square(r.predict(x[validation]) - y[validation]).mean())
    )


def _regressor(hidden: tuple[int, ...], seed: int) -> Any:
    return MLPRegressor(
        hidden_layer_sizes=hidden,
        activation="tanh",
        solver="lbfgs",
        alpha=WEIGHT_DECAY,
        tol=TOLERANCE,
        random_state=seed,
        warm_start=True,
    )


def _train(regressor: Any, x: FloatArray, y: FloatArray, iterations: int) -> None:
    regressor.set_params(max_iter=iterations, max_fun=2 * iterations)
    # More threads than one make such small matrices several times slower.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        # Stopping early is wanted in the restarts, and the held-out error judges the final run.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regressor.fit(x, y)


def _network(regressor: Any, scaling: _Scaling) -> Network:
    return Network(
        input_mean=scaling.input_mean,
        input_scale=scaling.input_scale,
        weights=tuple(np.asarray(w, dtype=np.float64).T.copy() for w in regressor.coefs_),
        biases=tuple(np.asarray(b, dtype=np.float64) for b in regressor.intercepts_),
        output_mean=scaling.output_mean,
        output_scale=scaling.output_scale,
    )


def _errors(wrong_by: FloatArray) -> Errors:
    return Errors(
        rmse_v=float(np.sqrt(np.square(wrong_by).mean())), mae_v=float(np.abs(wrong_by).mean())
    )


def _require_enough(table: TripTable, rows: int, hidden: tuple[int, ...]) -> None:
    if np.ptp(table.target) == 0:
        raise TableError(table.name, "the target never changes", "Choose another --target.")
    sizes = (table.features.shape[1], *hidden, 1)
    weights = sum((a + 1) * b for a, b in pairwise(sizes))
    if rows < weights:
        problem = f"{rows} rows to train on are too few for {weights} weights"
        raise TableError(table.name, problem, "Choose more trips or a smaller --hidden.")
