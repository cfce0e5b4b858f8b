"""Parse a message or a document whose `schema` must be known. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from common.errors import MalformedMessageError, UnknownSchemaError

T = TypeVar("T")


class _Header(msgspec.Struct):
    schema: int


_HEADER: Final = msgspec.json.Decoder(_Header)


@lru_cache(maxsize=64)
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    """Made once: finding out how a type is laid out costs as much as a small message."""
    return msgspec.json.Decoder(kind)


def decode_document(content: bytes, kind: type[T], schema: int) -> T:
    """The document of that schema. Raises UnknownSchemaError, MalformedMessageError."""
    try:
        found = _HEADER.decode(content).schema
        if found != schema:
            raise UnknownSchemaError(found, schema)
        document: T = _decoder(kind).decode(content)  # type: ignore[arg-type]  # a class is
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(kind.__name__, str(error)) from error
    return document
