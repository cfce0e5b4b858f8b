"""Parse a message or a document whose `schema` must be known. Pure."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from common.errors import MalformedMessageError, UnknownSchemaError

T = TypeVar("T")


class _Header(msgspec.Struct):
    schema: int


def decode_document(content: bytes, kind: type[T], schema: int) -> T:
    """The document of that schema. Raises UnknownSchemaError, MalformedMessageError."""
    try:
        found = msgspec.json.decode(content, type=_Header).schema
        if found != schema:
            raise UnknownSchemaError(found, schema)
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(kind.__name__, str(error)) from error
