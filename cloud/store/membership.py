"""Whether a column's value is one of a list, as one text of SQL however long the list is.

`IN (?, ?, …)` is another statement for each length, which SQLAlchemy puts together and PostgreSQL
plans anew every time. Must never be used where the list is written into the query itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

from sqlalchemy import ARRAY, BigInteger, Boolean, Dialect, String, Text, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine
from sqlmodel import col


class _Several(TypeDecorator[Sequence[Any]]):
    """A list as one parameter: an array for PostgreSQL, JSON for SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, *, numbers: bool) -> None:
        super().__init__()
        self.numbers = numbers

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See SQLAlchemy."""
        if dialect.name == "postgresql":
            return ARRAY(BigInteger() if self.numbers else String())
        return Text()

    def process_bind_param(self, value: Sequence[Any] | None, dialect: Dialect) -> Any:
        """See SQLAlchemy."""
        several = list(value or ())
        return several if dialect.name == "postgresql" else json.dumps(several)


class _Among(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True

    def self_group(self, against: object = None) -> Self:  # noqa: ARG002
        """As it is: SQLAlchemy would compare it with 1, and SQLite then uses no index."""
        return self


@compiles(_Among, "postgresql")
def _as_array(element: _Among, compiler: SQLCompiler, **kw: Any) -> str:
    column, several = element.clauses
    return f"{compiler.process(column, **kw)} = ANY ({compiler.process(several, **kw)})"


@compiles(_Among, "sqlite")
def _as_json(element: _Among, compiler: SQLCompiler, **kw: Any) -> str:
    column, several = element.clauses
    found = f"(SELECT value FROM json_each({compiler.process(several, **kw)}))"  # noqa: S608  # its parts are compiled
    return f"{compiler.process(column, **kw)} IN {found}"


def among(column: object, name: str, *, numbers: bool = False) -> ColumnElement[bool]:
    """Whether a column is one of the texts, or numbers, of the list parameter `name`."""
    return _Among(col(column), bindparam(name, type_=_Several(numbers=numbers)))
