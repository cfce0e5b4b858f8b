"""The statements of a version, written as SQLite takes them, for both databases.

Must never be more than a few words: what differs in more has its own branch in the version.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

_WORDS: Final = (
    (r"\bid INTEGER NOT NULL\b", "id BIGSERIAL NOT NULL"),
    (r"\bINTEGER\b", "BIGINT"),
    (r"\bVARCHAR\b", 'TEXT COLLATE "C"'),
    (r"\bBLOB\b", "BYTEA"),
    (r"\bBOOLEAN DEFAULT 0\b", "BOOLEAN DEFAULT false"),
    (r"\bBOOLEAN DEFAULT 1\b", "BOOLEAN DEFAULT true"),
)


def run(connection: Connection, statements: Iterable[str]) -> None:
    """One after the other."""
    for statement in statements:
        connection.exec_driver_sql(_spelled(statement, connection.dialect.name))


def _spelled(statement: str, dialect: str) -> str:
    if dialect == "postgresql":
        for words, other in _WORDS:
            statement = re.sub(words, other, statement)
    return statement
