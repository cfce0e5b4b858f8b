"""A list as a file: CSV, NDJSON or Parquet, row after row, with a mark where it was cut off.

Must never hold more than one page of rows, and never let a spreadsheet take a text for a formula.
"""

from __future__ import annotations

import csv
import io
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec
from pydantic import BaseModel

Format = Literal["json", "csv", "ndjson", "parquet"]
MEDIA: Final[Mapping[Format, str]] = {
    "json": "application/json",
    "csv": "text/csv",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_NESTED_TEXT: Final = (list, dict)

# Items; or, once and last, the cursor with which to go on where the file was cut off.
Chunk = Sequence[BaseModel] | str


def chosen(wanted: Format | None, accept: str | None) -> Format | None:
    """As asked for, else what the Accept header prefers; None: it takes none of these."""
    if wanted is not None:
        return wanted
    for media in _preferred(accept or "*/*"):
        for name, own in MEDIA.items():
            if media in {own, "*/*", own.split("/")[0] + "/*"}:
                return name
    return None


def _preferred(accept: str) -> list[str]:
    """The media types of an Accept header, the best first; what has q=0 is left out."""
    weighed = []
    for position, part in enumerate(accept.split(",")):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        given = [word[2:] for word in parameters if word.startswith("q=")]
        try:
            weight = float(given[0]) if given else 1.0
        except ValueError:
            weight = 0.0
        if weight > 0:
            weighed.append((-weight, position, media))
    return [media for *_, media in sorted(weighed)]


def encoded(name: Format, kind: type[BaseModel], chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """The file, piece by piece. A cursor at the end means that it was cut off there."""
    if name == "csv":
        return _csv(kind, chunks)
    if name == "parquet":
        return _parquet(kind, chunks)
    return _ndjson(chunks)


def _ndjson(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """One object a line; where it was cut off, a last one with `cut_off` and `next`."""
    for chunk in chunks:
        if isinstance(chunk, str):
            yield msgspec.json.encode({"cut_off": True, "next": chunk}) + b"\n"
        else:
            yield b"".join(msgspec.json.encode(item.model_dump()) + b"\n" for item in chunk)


def _csv(kind: type[BaseModel], chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """RFC 4180 with a header; where it was cut off, a last line that begins with #."""
    columns = _columns(kind)
    yield _lines([list(columns)])
    for chunk in chunks:
        if isinstance(chunk, str):
            yield f"# cut off here; go on with cursor={chunk}\r\n".encode()
        else:
            rows = (_flat(item.model_dump(), columns) for item in chunk)
            yield _lines([[_cell(value) for value in row] for row in rows])


def _lines(rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    """A text that a spreadsheet would run is led by an apostrophe; numbers stay numbers."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value


def _parquet(kind: type[BaseModel], chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """A row group a chunk; where it was cut off, `cut_off` and `next` in the file's metadata."""
    import pyarrow as pa  # noqa: PLC0415  # a second to load: only for those who ask
    import pyarrow.parquet as pq  # noqa: PLC0415

    columns = _columns(kind)
    arrow = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    arrow[datetime] = pa.timestamp("us", tz="UTC")
    schema = pa.schema([(name, arrow[of]) for name, of in columns.items()])
    sink = _Sink()
    with pq.ParquetWriter(sink, schema) as writer:
        for chunk in chunks:
            if isinstance(chunk, str):
                writer.add_key_value_metadata({"cut_off": "true", "next": chunk})
                break
            rows = [_flat(item.model_dump(), columns) for item in chunk]
            arrays = [
                pa.array([row[i] for row in rows], type=field.type)
                for i, field in enumerate(schema)
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            yield sink.taken()
    yield sink.taken()


class _Sink(io.RawIOBase):
    """What a writer writes, taken away piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._written

    def taken(self) -> bytes:
        """What was written since the last time."""
        found, self._pieces = b"".join(self._pieces), []
        return found


def _columns(kind: type[BaseModel]) -> dict[str, type]:
    """Column names and their types; a model inside is spread out (`cause_kind`), a list is JSON."""
    found: dict[str, type] = {}
    for name, field in kind.model_fields.items():
        inner = _plain(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= {f"{name}_{below}": of for below, of in _columns(inner).items()}
        else:
            found[name] = inner if inner in {str, int, float, bool, datetime} else str
    return found


def _plain(annotation: Any) -> Any:
    """A type without None; a choice of words is a text."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {typing.Union, types.UnionType}:
        return _plain(next(one for one in arguments if one is not type(None)))
    if origin is typing.Literal:
        return type(arguments[0])
    if origin is typing.Annotated:
        return _plain(arguments[0])
    return annotation


def _flat(item: Mapping[str, Any], columns: Mapping[str, type]) -> list[Any]:
    """The cells of a dumped item, in the order of the columns."""
    spread: dict[str, Any] = {}
    for name, value in item.items():
        if isinstance(value, dict) and name not in columns:
            spread |= {f"{name}_{below}": one for below, one in value.items()}
        else:
            spread[name] = value
    return [_text(spread.get(name), of) for name, of in columns.items()]


def _text(value: Any, of: type) -> Any:
    if isinstance(value, _NESTED_TEXT):
        return msgspec.json.encode(value).decode()
    return float(value) if of is float and value is not None else value
