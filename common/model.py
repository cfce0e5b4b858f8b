"""Run a bundle's .tflite: features and parameters in, voltage out. The only forward pass there is.

Must never interpret the numbers: what a feature or a parameter means stands in the manifest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from common.bundle import Bundle
from common.errors import ModelContractError
from common.flatbuffer_check import is_whole
from common.quiet_runtime import without_greeting

FloatArray = npt.NDArray[np.float64]

# Resizing an interpreter costs 10-100 times an invocation: keep one per size, pad up to the next.
BATCH_SIZES: Final = (1, 16, 64, 256, 1024, 4096)


# Taken once and never given back.
_GREETED: Final = threading.Lock()


class VoltageModel:
    """The model of one bundle. Not safe for concurrent use: give each thread its own."""

    def __init__(self, bundle: Bundle) -> None:
        if not is_whole(bundle.model):  # the interpreter would read beyond its end, and crash
            raise ModelContractError(bundle.path, "it is truncated, damaged or no .tflite")
        self._model = bundle.model
        self._where = bundle.path
        self._feature_count = len(bundle.manifest.features)
        self._parameter_count = len(bundle.manifest.parameters)
        self._runners: dict[int, _Runner] = {}
        with _first_runtime():
            self._runner(1)

    def predict(self, features: npt.ArrayLike, parameters: npt.ArrayLike) -> FloatArray:
        """Voltage in volts, shape [n].

        features: [n, F] in manifest order and units. parameters: [P], or [n, P] for one θ per row.
        """
        x = np.asarray(features, dtype=np.float32).reshape(-1, self._feature_count)
        theta = np.asarray(parameters, dtype=np.float32)
        if theta.shape != (len(x), self._parameter_count):
            theta = np.broadcast_to(theta, (len(x), self._parameter_count))
        largest = BATCH_SIZES[-1]
        if 0 < len(x) <= largest:
            return self._chunk(x, theta)
        chunks = [
            self._chunk(x[start : start + largest], theta[start : start + largest])
            for start in range(0, len(x), largest)
        ]
        return np.concatenate(chunks) if chunks else np.empty(0)

    def predict_crossed(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
        """Voltage [B, k, m] of each of a vehicle's k parameter sets over each of its m rows.

        features: [B, m, F]; parameters: [B, k, P].
        """
        batch, m, _ = features.shape
        k = parameters.shape[1]
        at_once = BATCH_SIZES[-1] // (k * m)
        if at_once == 0:
            rows = batch * k * m
            x = features[:, None].repeat(k, axis=1).reshape(rows, -1)
            theta = parameters[:, :, None].repeat(m, axis=2).reshape(rows, -1)
            return self.predict(x, theta).reshape(batch, k, m)
        if batch <= at_once:
            return self._crossed(features, parameters)
        starts = range(0, batch, at_once)
        parts = [
            self._crossed(features[i : i + at_once], parameters[i : i + at_once]) for i in starts
        ]
        return np.concatenate(parts)

    def _crossed(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
        rows = features.shape[0] * features.shape[1] * parameters.shape[1]
        size = next(size for size in BATCH_SIZES if size >= rows)
        return self._runner(size).crossed(features, parameters)

    def predict_grid(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
        """Voltage [k, m] of each of k parameter sets over the same m rows, however many there are.

        features: [m, F]; parameters: [k, P]. In blocks that fill the largest interpreter, so that
        a million rows need no memory of their own.
        """
        block = max(BATCH_SIZES[-1] // max(len(features), 1), 1)
        parts = [
            self.predict_crossed(features[None], parameters[None, start : start + block])[0]
            for start in range(0, len(parameters), block)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(features)))

    def predict_fan(self, features: Sequence[float], parameters: FloatArray) -> FloatArray:
        """Voltage [k] of one row through k parameter sets [k, P]: a vehicle's, for each sample.

        By an interpreter of exactly k rows: k is the same for all trips of a bundle.
        """
        return self._runner(len(parameters)).fan(features, parameters)

    def predict_one(self, features: Sequence[float], parameters: FloatArray) -> float:
        """Voltage of one row in volts: what a vehicle does for each sample, without a detour."""
        return self._runner(1).one(features, parameters)

    def _chunk(self, x: npt.NDArray[np.float32], theta: npt.NDArray[np.float32]) -> FloatArray:
        size = next(size for size in BATCH_SIZES if size >= len(x))
        return self._runner(size)(x, theta)

    def _runner(self, size: int) -> _Runner:
        if size not in self._runners:
            self._runners[size] = _Runner(
                self._model, size, self._feature_count, self._parameter_count, self._where
            )
        return self._runners[size]


class _Runner:
    """One interpreter, allocated once for one batch size."""

    def __init__(self, model: bytes, size: int, features: int, parameters: int, where: Any) -> None:
        try:
            self._interpreter = _interpreter_class()(model_content=model, num_threads=1)
            inputs = {t["name"].split(":")[0]: t for t in self._interpreter.get_input_details()}
            outputs = self._interpreter.get_output_details()
        except (ValueError, RuntimeError) as error:
            raise ModelContractError(where, f"it does not load ({_one_line(error)})") from error
        _check_tensors(inputs, outputs, features, parameters, where)
        self._x_index = inputs["features"]["index"]
        self._theta_index = inputs["parameters"]["index"]
        self._output_index = outputs[0]["index"]
        self._x = np.zeros((size, features), dtype=np.float32)
        self._theta = np.zeros((size, parameters), dtype=np.float32)
        try:
            self._interpreter.resize_tensor_input(self._x_index, self._x.shape)
            self._interpreter.resize_tensor_input(self._theta_index, self._theta.shape)
            self._interpreter.allocate_tensors()
            found = self._run()
        except (ValueError, RuntimeError) as error:
            raise ModelContractError(
                where, f"it does not run on {size} rows ({_one_line(error)})"
            ) from error
        if found.shape != (size, 1):
            raise ModelContractError(where, f"it gives {found.shape} for {size} rows")

    def __call__(self, x: npt.NDArray[np.float32], theta: npt.NDArray[np.float32]) -> FloatArray:
        rows = len(x)
        self._x[:rows] = x
        self._theta[:rows] = theta
        return self._run()[:rows, 0].astype(np.float64)

    def crossed(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
        """Straight into the interpreter's rows: repeating them first costs as much again."""
        batch, m, width = features.shape
        k, count = parameters.shape[1:]
        rows = batch * k * m
        self._x[:rows].reshape(batch, k, m, width)[...] = features[:, None]
        self._theta[:rows].reshape(batch, k, m, count)[...] = parameters[:, :, None]
        return self._run()[:rows, 0].astype(np.float64).reshape(batch, k, m)

    def fan(self, x: Sequence[float], theta: FloatArray) -> FloatArray:
        self._x[:] = x
        self._theta[:] = theta
        return self._run()[:, 0].astype(np.float64)

    def one(self, x: Sequence[float], theta: FloatArray) -> float:
        self._x[0] = x
        self._theta[0] = theta
        return float(self._run()[0, 0])

    def _run(self) -> npt.NDArray[np.float32]:
        self._interpreter.set_tensor(self._x_index, self._x)
        self._interpreter.set_tensor(self._theta_index, self._theta)
        self._interpreter.invoke()
        result: npt.NDArray[np.float32] = self._interpreter.get_tensor(self._output_index)
        return result


@contextmanager
def _first_runtime() -> Iterator[None]:
    """The first interpreter of a process makes the runtime greet its user."""
    if not _GREETED.acquire(blocking=False):
        yield
        return
    with without_greeting():
        yield


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _interpreter_class() -> Any:
    try:
        from tflite_runtime.interpreter import Interpreter  # noqa: PLC0415
    except ImportError:
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415
    return Interpreter


def _check_tensors(
    inputs: dict[str, Any], outputs: list[Any], features: int, parameters: int, where: Any
) -> None:
    if set(inputs) != {"features", "parameters"}:
        raise ModelContractError(where, f"its inputs are {sorted(inputs)}")
    for name, width in (("features", features), ("parameters", parameters)):
        shape = [int(size) for size in inputs[name]["shape_signature"]]
        if len(shape) != 2 or shape[1] != width or inputs[name]["dtype"] is not np.float32:  # noqa: PLR2004
            raise ModelContractError(
                where, f"'{name}' is {inputs[name]['dtype'].__name__}{shape}, needed [-1, {width}]"
            )
    if len(outputs) != 1 or outputs[0]["dtype"] is not np.float32:
        raise ModelContractError(where, "it does not give exactly one float32 output")
