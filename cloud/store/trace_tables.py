"""The files that traces of settled breaches have gone to; the rows of breaches name them.

Must never lose the row of a file that is gone: it says until when the file was kept.
"""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlmodel import Field, SQLModel


class TraceFile(SQLModel, table=True):
    """One file of the archive. `month` is when its breaches were received, such as 2026-11.

    The row is older than the file: until `released_at` some rows may hold their traces still, and
    the file may not be there.
    """

    __tablename__ = "trace_file"
    __table_args__ = (
        Index("trace_file_of_month", "month", "name"),
        Index("trace_file_unreleased", "made_at", sqlite_where=text("released_at IS NULL")),
    )

    name: str = Field(primary_key=True)
    month: str
    breaches: int
    trace_bytes: int  # of the JSON
    file_bytes: int
    made_at: float
    released: int = 0  # breaches that name it
    released_at: float | None = None
    removed_at: float | None = None  # kept no longer
