"""What is kept beside the chains: signed heads, what became of each revision, operators' orders.

Must never hold the only copy of what a revision says.
"""

from __future__ import annotations

from sqlalchemy import Index, LargeBinary, text
from sqlmodel import Field, SQLModel


class HeadStatement(SQLModel, table=True):
    """A signed statement of where every chain stood (cloud.audit.heads), by its number."""

    __tablename__ = "head_statement"

    number: int = Field(primary_key=True)
    signed: bytes = Field(sa_type=LargeBinary)  # JSON
    made_at: float
    exported_at: float | None = None


class ChainHead(SQLModel, table=True):
    """A vehicle's head as the newest statement has it: the root signed there is over these rows."""

    __tablename__ = "chain_head"

    vehicle_id: str = Field(primary_key=True)
    number: int
    hash: str


class RevisionNote(SQLModel, table=True):
    """One thing that became of a revision: pushed, applied, refused, confirmed. Append-only.

    `detail` is JSON: by which key, or why.
    """

    __tablename__ = "revision_note"
    __table_args__ = (Index("note_of_revision", "vehicle_id", "number", "id"),)

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    number: int
    at: float
    kind: str
    detail: bytes = Field(sa_type=LargeBinary)


class RecalibrationOrder(SQLModel, table=True):
    """Somebody's wish to have breaches replayed from a revision on; `revision` is what it brought.

    `from_revision` 0: from the beginning of the present battery.
    """

    __tablename__ = "recalibration_order"
    __table_args__ = (
        Index(
            "recalibration_order_pending",
            "id",
            sqlite_where=text("done_at IS NULL"),
        ),
        Index("recalibration_order_by_time", "ordered_at", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    from_revision: int
    ordered_by: str
    why: str
    ordered_at: float
    done_at: float | None = None
    revision: int | None = None
    replayed: int | None = None  # how many breaches
    problem: str | None = None  # why it brought none


class Pin(SQLModel, table=True):
    """Somebody's word that a vehicle keeps the content of a revision until it is ended.

    `revision` is the new one that carries the content; `problem` why there is none.
    """

    __table_args__ = (
        Index(
            "pin_pending",
            "id",
            sqlite_where=text("done_at IS NULL"),
        ),
        Index(
            "pin_in_force",
            "vehicle_id",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
        ),
        Index("pin_by_time", "ordered_at", "id"),
    )

    id: int | None = Field(default=None, primary_key=True)
    vehicle_id: str
    to_revision: int
    ordered_by: str
    why: str
    ordered_at: float
    done_at: float | None = None
    revision: int | None = None
    problem: str | None = None
    ended_at: float | None = None
    ended_by: str | None = None
    ended_why: str | None = None
