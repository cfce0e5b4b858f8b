"""Write a .tflite file slot by slot with the `flatbuffers` package: tensors, constants, operators.

Knows the file format (TensorFlow Lite schema version 3) and nothing of batteries or networks. Must
never write anything that depends on time, place or dictionary order: same graph, same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import flatbuffers
import numpy as np
import numpy.typing as npt

SCHEMA_VERSION: Final = 3
FILE_IDENTIFIER: Final = b"TFL3"
BUFFER_ALIGNMENT: Final = 16


@dataclass(frozen=True)
class OpKind:
    """A built-in operator: its code, and the member of the options union that goes with it."""

    code: int
    options: int


ADD: Final = OpKind(code=0, options=11)
FULLY_CONNECTED: Final = OpKind(code=9, options=8)
MUL: Final = OpKind(code=18, options=21)
TANH: Final = OpKind(code=28, options=0)


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    buffer: int
    is_dynamic: bool


@dataclass(frozen=True)
class _Operator:
    kind: OpKind
    inputs: tuple[int, ...]
    output: int


@dataclass
class Graph:
    """A graph under construction. Tensors are named by the integers that its methods return."""

    _tensors: list[_Tensor] = field(default_factory=list)
    _constants: list[bytes] = field(default_factory=list)
    _operators: list[_Operator] = field(default_factory=list)
    _inputs: list[int] = field(default_factory=list)

    def input(self, name: str, width: int) -> int:
        """A float32 [n, width] input of the graph."""
        index = self._rows(name, width)
        self._inputs.append(index)
        return index

    def constant(self, name: str, values: npt.ArrayLike) -> int:
        """A float32 constant."""
        array = np.asarray(values, dtype="<f4")
        self._constants.append(array.tobytes())
        # Buffer 0 is the empty one that the format reserves.
        self._tensors.append(_Tensor(name, array.shape, len(self._constants), is_dynamic=False))
        return len(self._tensors) - 1

    def operator(self, kind: OpKind, inputs: Sequence[int], name: str, width: int) -> int:
        """Apply `kind` to tensors; gives the float32 [n, width] result."""
        output = self._rows(name, width)
        self._operators.append(_Operator(kind, tuple(inputs), output))
        return output

    def encode(self, output: int, description: str) -> bytes:
        """The finished file, with `output` as the only output of the graph."""
        builder = flatbuffers.Builder(4096)
        kinds = sorted({operator.kind for operator in self._operators}, key=lambda kind: kind.code)
        codes = _vector(builder, [_operator_code(builder, kind) for kind in kinds])
        buffers = _vector(builder, [_buffer(builder, data) for data in (b"", *self._constants)])
        subgraphs = _vector(builder, [self._subgraph(builder, kinds, output)])
        text = builder.CreateString(description)
        model = _table(
            builder,
            8,
            lambda: builder.PrependInt32Slot(0, SCHEMA_VERSION, 0),
            lambda: builder.PrependUOffsetTRelativeSlot(1, codes, 0),
            lambda: builder.PrependUOffsetTRelativeSlot(2, subgraphs, 0),
            lambda: builder.PrependUOffsetTRelativeSlot(3, text, 0),
            lambda: builder.PrependUOffsetTRelativeSlot(4, buffers, 0),
        )
        builder.Finish(model, file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _rows(self, name: str, width: int) -> int:
        self._tensors.append(_Tensor(name, (1, width), 0, is_dynamic=True))
        return len(self._tensors) - 1

    def _subgraph(self, builder: Any, kinds: list[OpKind], output: int) -> int:
        tensors = _vector(builder, [_tensor(builder, tensor) for tensor in self._tensors])
        operators = _vector(
            builder,
            [_operator(builder, item, kinds.index(item.kind)) for item in self._operators],
        )
        inputs, outputs = _int32s(builder, self._inputs), _int32s(builder, [output])
        return _table(
            builder,
            5,
            lambda: builder.PrependUOffsetTRelativeSlot(0, tensors, 0),
            lambda: builder.PrependUOffsetTRelativeSlot(1, inputs, 0),
            lambda: builder.PrependUOffsetTRelativeSlot(2, outputs, 0),
            lambda: builder.PrependUOffsetTRelativeSlot(3, operators, 0),
        )


def _tensor(builder: Any, tensor: _Tensor) -> int:
    shape = _int32s(builder, tensor.shape)
    signature = _int32s(builder, (-1, *tensor.shape[1:])) if tensor.is_dynamic else 0
    name = builder.CreateString(tensor.name)
    return _table(
        builder,
        9,
        lambda: builder.PrependUOffsetTRelativeSlot(0, shape, 0),
        lambda: builder.PrependInt8Slot(1, 0, 0),  # FLOAT32
        lambda: builder.PrependUint32Slot(2, tensor.buffer, 0),
        lambda: builder.PrependUOffsetTRelativeSlot(3, name, 0),
        lambda: builder.PrependUOffsetTRelativeSlot(7, signature, 0),
    )


def _operator(builder: Any, operator: _Operator, code: int) -> int:
    inputs = _int32s(builder, operator.inputs)
    outputs = _int32s(builder, (operator.output,))
    options = _table(builder, 4) if operator.kind.options else 0
    return _table(
        builder,
        5,
        lambda: builder.PrependUint32Slot(0, code, 0),
        lambda: builder.PrependUOffsetTRelativeSlot(1, inputs, 0),
        lambda: builder.PrependUOffsetTRelativeSlot(2, outputs, 0),
        lambda: builder.PrependUint8Slot(3, operator.kind.options, 0),
        lambda: builder.PrependUOffsetTRelativeSlot(4, options, 0),
    )


def _operator_code(builder: Any, kind: OpKind) -> int:
    return _table(
        builder,
        4,
        lambda: builder.PrependInt8Slot(0, kind.code, 0),
        lambda: builder.PrependInt32Slot(2, 1, 1),
        lambda: builder.PrependInt32Slot(3, kind.code, 0),
    )


def _buffer(builder: Any, data: bytes) -> int:
    if not data:
        return _table(builder, 1)
    builder.StartVector(1, len(data), BUFFER_ALIGNMENT)
    for byte in reversed(data):
        builder.PrependByte(byte)
    vector = builder.EndVector()
    return _table(builder, 1, lambda: builder.PrependUOffsetTRelativeSlot(0, vector, 0))


def _table(builder: Any, slots: int, *writes: Callable[[], object]) -> int:
    builder.StartObject(slots)
    for write in writes:
        write()
    return int(builder.EndObject())


def _int32s(builder: Any, values: Sequence[int]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependInt32(value)
    return int(builder.EndVector())


def _vector(builder: Any, offsets: Sequence[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())
