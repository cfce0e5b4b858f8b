"""What happened, one row each, in the order in which it is read: live views, webhooks, audit.

Must never be the only place where a fact stands: rows go when they are old.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Field, SQLModel


class CurrentTransaction(FunctionElement[int]):
    """The number of the transaction that writes: ordered by its beginning, not by its commit.

    SQLite has one writer at a time, so that ids alone are in order of commit: there it is 0.
    """

    type = BigInteger()
    inherit_cache = True


@compiles(CurrentTransaction)
def _none(_element: CurrentTransaction, _compiler: Any, **_: Any) -> str:
    return "0"


@compiles(CurrentTransaction, "postgresql")
def _of_postgresql(_element: CurrentTransaction, _compiler: Any, **_: Any) -> str:
    return "CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT)"


class Event(SQLModel, table=True):
    """`kind` is a dotted name such as `revision.made`; `detail` is JSON; `tx` see above."""

    __table_args__ = (
        Index("event_of_vehicle", "vehicle_id", "id"),
        Index("event_in_order", "tx", "id"),
        Index("event_by_age", "at"),
        Index(
            "event_of_actor",
            "id",
            sqlite_where=text("actor IS NOT NULL"),
            postgresql_where=text("actor IS NOT NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    at: float
    kind: str
    vehicle_id: str | None = None
    cohort: str | None = None
    actor: str | None = None  # who did it; None: the service itself, or the vehicle
    detail: bytes = Field(sa_type=LargeBinary)
    tx: int | None = Field(
        default=None,
        sa_type=BigInteger,
        sa_column_kwargs={"nullable": False, "default": CurrentTransaction()},
    )


class EventCursor(SQLModel, table=True):
    """How far a reader of this service has come; `name` is whose cursor it is."""

    __tablename__ = "event_cursor"

    name: str = Field(primary_key=True)
    tx: int = Field(sa_type=BigInteger)
    event: int
