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
    whose v becomes v + (response − 1) · (v − v₀) with v₀ that of some inputs at zero, then
    gain · (v + bias) + offset. What no parameter acts on costs no operator. Same arguments,
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
        self._weights: dict[str, tuple[int, int]] = {}

    def voltage(self) -> int:
        x = self._inputs()
        hidden = self._hidden(self._centred(x))
        return self._output(hidden, self._responses(x, hidden))

    def _inputs(self) -> int:
        """gain · x, what is added comes with the mean."""
        x = self._features
        width = self._network.input_count
        for number, group in enumerate(_without_overlap(self._of(Kind.INPUT_GAIN))):
            gains = self._picked(f"input_gain_{number}", group, np.ones(width))
            x = self.graph.operator(MUL, (x, gains), f"scaled_input_{number}", width)
        return x

    def _centred(self, x: int, zero: Sequence[int] = (), suffix: str = "") -> int:
        """gain · x + offset − mean; unscaled, so that float32 cancels less. At `zero` −mean."""
        width = self._network.input_count
        offsets = self._of(Kind.INPUT_OFFSET)
        shift = -self._network.input_mean
        if zero:
            offsets = [(p, target) for p, target in offsets if target.indices[0] not in zero]
            kept = self.graph.constant(f"kept{suffix}", 1.0 - np.isin(np.arange(width), zero)[None])
            x = self.graph.operator(MUL, (x, kept), f"kept_input{suffix}", width)
        if offsets:
            added = self._picked(f"input_offset{suffix}", offsets, shift, add_to=True)
        else:
            added = self.graph.constant(f"minus_input_mean{suffix}", shift[None])
        return self.graph.operator(ADD, (x, added), f"centred_input{suffix}", width)

    def _hidden(self, x: int, suffix: str = "") -> int:
        network = self._network
        weights = [network.weights[0] / network.input_scale, *network.weights[1:-1]]
        for number, (w, b) in enumerate(zip(weights, network.biases[:-1], strict=True)):
            x = self._dense(x, w, b, f"dense_{number}", suffix)
            x = self.graph.operator(TANH, (x,), f"hidden_{number}{suffix}", len(b))
        factors = self._of(Kind.LAST_WEIGHT)
        if not factors:
            return x
        width = network.last_hidden_count
        picked = self._picked(f"last_weight{suffix}", factors, np.ones(width))
        return self.graph.operator(MUL, (x, picked), f"weighted_hidden{suffix}", width)

    def _responses(self, x: int, hidden: int) -> list[int]:
        """(response − 1) · (v − v₀) of each response; the mean voltage is in neither."""
        w = self._network.weights[-1] * self._network.output_scale
        parts = []
        for number, (p, target) in enumerate(self._of(Kind.RESPONSE)):
            suffix = f"_without_{number}"
            without = self._hidden(self._centred(x, target.indices, suffix), suffix)
            zero = np.zeros(1)
            answer = self.graph.operator(
                ADD,
                (
                    self._dense(hidden, w, zero, "with_all_inputs", suffix),
                    self._dense(without, -w, zero, "minus_without", suffix),
                ),
                f"answer{suffix}",
                1,
            )
            beyond = self._picked(
                f"response{suffix}", [(p, Target(Kind.RESPONSE, (0,)))], -np.ones(1), add_to=True
            )
            parts.append(self.graph.operator(MUL, (answer, beyond), f"responding{suffix}", 1))
        return parts

    def _output(self, hidden: int, responses: Sequence[int]) -> int:
        network = self._network
        w = network.weights[-1] * network.output_scale
        b = network.biases[-1] * network.output_scale + network.output_mean
        steps = [(ADD, Kind.LAST_BIAS), (MUL, Kind.OUTPUT_GAIN), (ADD, Kind.OUTPUT_OFFSET)]
        needed = [(op, self._of(kind)) for op, kind in steps if self._of(kind)]
        names = (*("network_output", "output_1", "output_2")[: len(needed)], "voltage")
        v = self._dense(hidden, w, b, "without_responses" if responses else names[0])
        for number, part in enumerate(responses, start=1):
            name = names[0] if number == len(responses) else f"with_response_{number}"
            v = self.graph.operator(ADD, (v, part), name, 1)
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

    def _dense(
        self, x: int, weights: FloatArray, bias: FloatArray, name: str, suffix: str = ""
    ) -> int:
        """Of one name the weights are one: a second pass through the network takes them again."""
        if name not in self._weights:
            w = self.graph.constant(f"{name}/weights", weights)
            self._weights[name] = w, self.graph.constant(f"{name}/bias", bias)
        inputs = (x, *self._weights[name])
        return self.graph.operator(FULLY_CONNECTED, inputs, f"{name}{suffix}", len(bias))


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
