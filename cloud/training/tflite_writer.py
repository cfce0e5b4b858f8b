"""Turn a network and a list of calibratable parameters into a .tflite, without TensorFlow.

The parameters are inputs of the graph, one θ per row. Must never compute a voltage: it writes the
graph that does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloud.training.candidates import Kind, Target
from cloud.training.flatbuffer_graph import ADD, FULLY_CONNECTED, MUL, TANH, Graph
from cloud.training.network import Network

FloatArray = npt.NDArray[np.float64]

DESCRIPTION = "living twin voltage model, parameters as inputs"


def write_tflite(network: Network, targets: Sequence[Target]) -> bytes:
    """The file: features [n, F] and parameters [n, P] → voltage [n, 1], all float32.

    `targets[p]` says what parameter p acts on. Inputs become gain · x + offset, then the network,
    then gain · (v + bias) + offset. What no parameter acts on costs no operator. Same arguments,
    same bytes.
    """
    writer = _Writer(network, targets)
    return writer.graph.encode(writer.voltage(), DESCRIPTION)


class _Writer:
    """One graph on its way; `graph` holds what was written so far."""

    def __init__(self, network: Network, targets: Sequence[Target]) -> None:
        self.graph = Graph()
        self._network = network
        self._targets = targets
        self._features = self.graph.input("features", network.input_count)
        self._parameters = self.graph.input("parameters", len(targets))

    def voltage(self) -> int:
        return self._output(self._hidden(self._inputs()))

    def _inputs(self) -> int:
        """gain · x + offset − mean; unscaled, so that float32 cancels less."""
        x = self._features
        width = self._network.input_count
        for number, group in enumerate(_without_overlap(self._of(Kind.INPUT_GAIN))):
            gains = self._picked(f"input_gain_{number}", group, np.ones(width))
            x = self.graph.operator(MUL, (x, gains), f"scaled_input_{number}", width)
        offsets = self._of(Kind.INPUT_OFFSET)
        shift = -self._network.input_mean
        if offsets:
            added = self._picked("input_offset", offsets, shift, add_to=True)
        else:
            added = self.graph.constant("minus_input_mean", shift[None])
        return self.graph.operator(ADD, (x, added), "centred_input", width)

    def _hidden(self, x: int) -> int:
        network = self._network
        weights = [network.weights[0] / network.input_scale, *network.weights[1:-1]]
        for number, (w, b) in enumerate(zip(weights, network.biases[:-1], strict=True)):
            x = self._dense(x, w, b, f"dense_{number}")
            x = self.graph.operator(TANH, (x,), f"hidden_{number}", len(b))
        factors = self._of(Kind.LAST_WEIGHT)
        if not factors:
            return x
        width = network.last_hidden_count
        picked = self._picked("last_weight", factors, np.ones(width))
        return self.graph.operator(MUL, (x, picked), "weighted_hidden", width)

    def _output(self, hidden: int) -> int:
        network = self._network
        w = network.weights[-1] * network.output_scale
        b = network.biases[-1] * network.output_scale + network.output_mean
        steps = [(ADD, Kind.LAST_BIAS), (MUL, Kind.OUTPUT_GAIN), (ADD, Kind.OUTPUT_OFFSET)]
        needed = [(op, self._of(kind)) for op, kind in steps if self._of(kind)]
        names = (*("network_output", "output_1", "output_2")[: len(needed)], "voltage")
        v = self._dense(hidden, w, b, names[0])
        for (op, acting), name in zip(needed, names[1:], strict=True):
            picked = self._picked(f"{name}_parameter", acting, np.zeros(1), add_to=True)
            v = self.graph.operator(op, (v, picked), name, 1)
        return v

    def _of(self, kind: Kind) -> list[tuple[int, Target]]:
        return [(p, target) for p, target in enumerate(self._targets) if target.kind is kind]

    def _picked(
        self,
        name: str,
        acting: Sequence[tuple[int, Target]],
        base: FloatArray,
        *,
        add_to: bool = False,
    ) -> int:
        """parameters → [n, len(base)]: `base`, replaced by (or plus) what acts there."""
        weights = np.zeros((len(base), len(self._targets)))
        bias = base.copy()
        for p, target in acting:
            weights[list(target.indices), p] = 1.0
            if not add_to:
                bias[list(target.indices)] = 0.0
        return self._dense(self._parameters, weights, bias, name)

    def _dense(self, x: int, weights: FloatArray, bias: FloatArray, name: str) -> int:
        w = self.graph.constant(f"{name}/weights", weights)
        b = self.graph.constant(f"{name}/bias", bias)
        return self.graph.operator(FULLY_CONNECTED, (x, w, b), name, len(bias))


def _without_overlap(acting: Sequence[tuple[int, Target]]) -> list[list[tuple[int, Target]]]:
    """Group gains so that within a group each input has at most one; groups multiply."""
    groups: list[list[tuple[int, Target]]] = []
    for p, target in acting:
        free = (group for group in groups if not _overlaps(group, target))
        group = next(free, None)
        if group is None:
            groups.append([(p, target)])
        else:
            group.append((p, target))
    return groups


def _overlaps(group: Sequence[tuple[int, Target]], target: Target) -> bool:
    return any(set(target.indices) & set(other.indices) for _, other in group)
