"""Is a .tflite structurally whole? Every table, vector and text of it must lie inside it.

The interpreter trusts offsets: on a truncated file it reads beyond the end, and crashes or, with
bad luck, does not. Knows the file format (TensorFlow Lite schema version 3), judges nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

IDENTIFIER: Final = b"TFL3"
MAX_OBJECTS: Final = 1_000_000


class _BrokenError(ValueError):
    """Some offset leads outside."""


@dataclass(frozen=True)
class _Schema:
    """What the slots of a table hold: vectors by the size of an item, tables, vectors of tables."""

    vectors: Mapping[int, int] = field(default_factory=dict)
    tables: Mapping[int, _Schema] = field(default_factory=dict)
    table_vectors: Mapping[int, _Schema] = field(default_factory=dict)


_TEXT: Final = 1
_PLAIN: Final = _Schema()
_QUANTIZATION: Final = _Schema(vectors={0: 4, 1: 4, 2: 4, 3: 8}, tables={5: _PLAIN})
_TENSOR: Final = _Schema(vectors={0: 4, 3: _TEXT, 7: 4}, tables={4: _QUANTIZATION, 6: _PLAIN})
_OPERATOR: Final = _Schema(vectors={1: 4, 2: 4, 5: 1, 7: 1, 8: 4}, tables={4: _PLAIN})
_SUBGRAPH: Final = _Schema(vectors={1: 4, 2: 4, 4: _TEXT}, table_vectors={0: _TENSOR, 3: _OPERATOR})
_NAMED: Final = _Schema(vectors={0: _TEXT})
_SIGNATURE: Final = _Schema(vectors={2: _TEXT}, table_vectors={0: _NAMED, 1: _NAMED})
_MODEL: Final = _Schema(
    vectors={3: _TEXT, 5: 4},
    table_vectors={
        1: _Schema(vectors={1: _TEXT}),
        2: _SUBGRAPH,
        4: _Schema(vectors={0: 1}),
        6: _NAMED,
        7: _SIGNATURE,
    },
)


def is_whole(model: bytes) -> bool:
    """Whether the bytes are a .tflite all of whose parts lie inside the file."""
    if model[4:8] != IDENTIFIER:
        return False
    try:
        _Walk(model).table(_follow(model, 0), _MODEL)
    except (_BrokenError, struct.error):
        return False
    return True


class _Walk:
    """One pass over a file; the number of objects is bounded: offsets may point anywhere."""

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._objects = 0

    def table(self, at: int, schema: _Schema) -> None:
        self._count()
        vtable = at - _read("<i", self._model, at)
        size, length = (_read("<H", self._model, vtable + 2 * i) for i in range(2))
        _require_inside(self._model, vtable, size)
        _require_inside(self._model, at, length)
        slots = [_read("<H", self._model, vtable + 4 + 2 * slot) for slot in range((size - 4) // 2)]
        for slot, offset in enumerate(slots):
            if offset:
                self._field(at + offset, slot, schema)

    def _field(self, at: int, slot: int, schema: _Schema) -> None:
        if slot in schema.vectors:
            self._vector(_follow(self._model, at), schema.vectors[slot])
        elif slot in schema.tables:
            self.table(_follow(self._model, at), schema.tables[slot])
        elif slot in schema.table_vectors:
            start = _follow(self._model, at)
            for item in range(self._vector(start, 4)):
                self.table(_follow(self._model, start + 4 + 4 * item), schema.table_vectors[slot])

    def _vector(self, at: int, item_size: int) -> int:
        self._count()
        count = _read("<I", self._model, at)
        _require_inside(self._model, at + 4, count * item_size)
        return count

    def _count(self) -> None:
        self._objects += 1
        if self._objects > MAX_OBJECTS:
            raise _BrokenError


def _follow(model: bytes, at: int) -> int:
    return at + _read("<I", model, at)


def _read(form: str, model: bytes, at: int) -> int:
    _require_inside(model, at, struct.calcsize(form))
    value: int = struct.unpack_from(form, model, at)[0]
    return value


def _require_inside(model: bytes, at: int, length: int) -> None:
    if at < 0 or at + length > len(model):
        raise _BrokenError
