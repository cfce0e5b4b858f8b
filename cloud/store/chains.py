"""Stored revisions as plain rows, many at a time: for whoever walks all of them.

Statements are text and rows are tuples: an object for each of a million revisions would cost more
than checking them. Must never write.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final, NamedTuple

from sqlalchemy import TextClause, text
from sqlmodel import Session

from cloud.audit.walk import Link

AT_ONCE: Final = 2000

_COLUMNS: Final = ", ".join(Link._fields)
_COUNTS = text("SELECT vehicle_id, count(*) FROM revision GROUP BY vehicle_id ORDER BY vehicle_id")
_NEWEST = text("SELECT vehicle_id, max(number) FROM revision GROUP BY vehicle_id")


class Span(NamedTuple):
    """Vehicles after one id, up to another and that one included; None: without an end there.

    In the order of the database, which need not be Python's.
    """

    after: str | None = None
    up_to: str | None = None


EVERYTHING: Final = Span()


def links(db: Session, span: Span) -> Iterator[Link]:
    """Every revision of the vehicles of a span, by vehicle and number."""
    statement = _within(f"SELECT {_COLUMNS} FROM revision WHERE true", span)  # noqa: S608  # our own names
    result = db.connection().execute(
        text(f"{statement} ORDER BY vehicle_id, number"),
        _ends(span),
        execution_options={"stream_results": True, "max_row_buffer": AT_ONCE},
    )
    return map(Link._make, chain.from_iterable(result.partitions(AT_ONCE)))


def links_after(db: Session, vehicle_id: str, number: int) -> Iterator[Link]:
    """The revisions of a vehicle that come after `number`, in order."""
    statement = _LINKS_AFTER
    rows = db.connection().execute(statement, {"vehicle": vehicle_id, "number": number})
    return map(Link._make, rows)


def counts(db: Session) -> list[tuple[str, int]]:
    """How many revisions each vehicle has, by vehicle, in the order of the database."""
    return [(row[0], row[1]) for row in db.connection().execute(_COUNTS)]


def newest_numbers(db: Session) -> dict[str, int]:
    """The number of each vehicle's newest revision."""
    return {row[0]: row[1] for row in db.connection().execute(_NEWEST)}


def missing(db: Session, span: Span) -> dict[str, str]:
    """By vehicle, the id of a breach that was calibrated and whose revision is not there.

    A chain that was cut at its end still holds: its breaches tell.
    """
    statement = _within(
        "SELECT vehicle_id, message_id FROM breach WHERE state = 'calibrated' AND NOT EXISTS "
        "(SELECT 1 FROM revision WHERE revision.vehicle_id = breach.vehicle_id "
        "AND revision.cause_message_id = breach.message_id)",
        span,
    )
    found = db.connection().execute(text(statement), _ends(span))
    return {row[0]: row[1] for row in found}


def _within(statement: str, span: Span) -> str:
    """Only with the ends that there are: an OR would keep the database from its index."""
    if span.after is not None:
        statement += " AND vehicle_id > :after"
    if span.up_to is not None:
        statement += " AND vehicle_id <= :up_to"
    return statement


def _ends(span: Span) -> dict[str, str]:
    return {name: end for name, end in span._asdict().items() if end is not None}


_LINKS_AFTER: Final[TextClause] = text(
    f"SELECT {_COLUMNS} FROM revision "  # noqa: S608  # our own names
    "WHERE vehicle_id = :vehicle AND number > :number ORDER BY number"
)
