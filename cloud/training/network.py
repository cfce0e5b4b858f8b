"""The trained network as plain numbers, and what of its training later steps need.

It stays in the cloud (BUNDLE/training/network.npz); vehicles get the .tflite and the manifest only.
Must never hold a forward pass: the one there is runs the .tflite.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from cloud.training.errors import TrainingRecordError
from common.trace import TraceArrays

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

NETWORK_FILE: Final = "training/network.npz"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, eq=False)
class Network:
    """A tanh network on standardised inputs and output.

    (x − input_mean [F]) / input_scale [F] → layers, weights [out, in] and biases [out], tanh after
    all but the last → × output_scale + output_mean, in volts.
    """

    input_mean: FloatArray
    input_scale: FloatArray
    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    output_mean: float
    output_scale: float

    @property
    def input_count(self) -> int:
        """Number of features F."""
        return len(self.input_mean)

    @property
    def last_hidden_count(self) -> int:
        """Units of the layer before the output."""
        return int(self.weights[-1].shape[1])


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """The network, and of its training table the ranges and a few rows.

    feature_ranges [F, 2] and target_range [2] are the observed minimum and maximum; rows [m, F] are
    those of a few training trips, thinned, on which effects of parameters are compared; `trip` [m]
    numbers their trips from 0, voltage_v [m] is what was measured, vehicle_of_trip [T] numbers
    vehicles.
    """

    network: Network
    feature_ranges: FloatArray
    target_range: FloatArray
    rows: FloatArray
    trip: IntArray
    voltage_v: FloatArray
    vehicle_of_trip: IntArray
    overrides: dict[str, Any]

    def trips(self) -> list[TraceArrays]:
        """The kept trips as traces; the table's times are not kept, the order of rows is."""
        found = []
        for number in range(len(self.vehicle_of_trip)):
            own = self.trip == number
            time_s = np.arange(float(own.sum()))
            found.append(TraceArrays(time_s, self.rows[own], self.voltage_v[own]))
        return found


def encode_record(record: TrainingRecord) -> bytes:
    """The bytes of network.npz; the same record gives the same bytes."""
    network = record.network
    arrays = {
        "format_version": np.array(FORMAT_VERSION),
        "input_mean": network.input_mean,
        "input_scale": network.input_scale,
        "output": np.array([network.output_mean, network.output_scale]),
        "feature_ranges": record.feature_ranges,
        "target_range": record.target_range,
        "rows": record.rows,
        "trip": record.trip,
        "voltage_v": record.voltage_v,
        "vehicle_of_trip": record.vehicle_of_trip,
        "overrides": np.array(json.dumps(record.overrides, sort_keys=True)),
    }
    for layer, (weights, biases) in enumerate(zip(network.weights, network.biases, strict=True)):
        arrays |= {f"weights_{layer}": weights, f"biases_{layer}": biases}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def load_record(bundle: Path) -> TrainingRecord:
    """The training record of a bundle folder. Raises TrainingRecordError."""
    path = bundle / NETWORK_FILE
    try:
        stream = io.BytesIO(path.read_bytes())
        with np.load(stream, allow_pickle=False) as arrays:
            return _record({name: arrays[name] for name in arrays.files})
    except (OSError, ValueError, LookupError, EOFError, AttributeError, BadZipFile) as error:
        raise TrainingRecordError(path, str(error)) from error


def _record(arrays: dict[str, Any]) -> TrainingRecord:
    found = int(arrays["format_version"])
    if found != FORMAT_VERSION:
        raise ValueError(f"format version {found}, this software knows {FORMAT_VERSION}")
    layers = range(sum(name.startswith("weights_") for name in arrays))
    output_mean, output_scale = (float(value) for value in arrays["output"])
    network = Network(
        input_mean=arrays["input_mean"],
        input_scale=arrays["input_scale"],
        weights=tuple(arrays[f"weights_{layer}"] for layer in layers),
        biases=tuple(arrays[f"biases_{layer}"] for layer in layers),
        output_mean=output_mean,
        output_scale=output_scale,
    )
    return TrainingRecord(
        network=network,
        feature_ranges=arrays["feature_ranges"],
        target_range=arrays["target_range"],
        rows=arrays["rows"],
        # Records of older versions know no trips: their rows count as one.
        trip=arrays.get("trip", np.zeros(len(arrays["rows"]), dtype=np.intp)),
        voltage_v=arrays.get("voltage_v", np.zeros(0)),
        vehicle_of_trip=arrays.get("vehicle_of_trip", np.zeros(0, dtype=np.intp)),
        overrides=json.loads(str(arrays["overrides"])),
    )
