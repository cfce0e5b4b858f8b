"""Cursor pages: one dependency for `limit` and `cursor`, opaque cursors, the Link header.

Must never let a cursor of another list pass.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, Field
from sqlmodel import Session

from cloud.api.problems import invalid
from cloud.store.database import Store

T = TypeVar("T")
K = TypeVar("K")
Row = TypeVar("Row")

DEFAULT_LIMIT: Final = 50
LARGEST_INTEGER: Final = 2**63 - 1  # that a database can compare with
LARGEST_LIMIT: Final = 500


class Page(BaseModel, Generic[T]):
    """A page of a list. `next` goes into `cursor` to get the following page; null on the last."""

    items: list[T]
    next: str | None = Field(examples=["WyJjYXItNyJd"])


@dataclass(frozen=True)
class Paging:
    """Which page of a list is asked for."""

    request: Request
    limit: int
    cursor: str | None


@dataclass(frozen=True)
class Listing(Generic[Row, K]):
    """A list: how to read the rows after a key, the key of a row, and what is shown of rows.

    `rows` gives at most as many as it is asked for, in an order that ends in something unique.
    """

    key_type: Any  # of K
    rows: Callable[[Session, K | None, int], Sequence[Row]]
    key: Callable[[Row], K]
    items: Callable[[Session, Sequence[Row]], Sequence[BaseModel]]


def _paging(
    request: Request,
    limit: Annotated[
        int, Query(ge=1, le=LARGEST_LIMIT, description="How many items a page has at most.")
    ] = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None,
        Query(max_length=512, description="`next` of the page before; none for the first."),
    ] = None,
) -> Paging:
    return Paging(request, limit, cursor)


Paged = Annotated[Paging, Depends(_paging)]


def answer(store: Store, paging: Paging, listing: Listing[Row, K]) -> Response:
    """The page that is asked for. Raises ProblemError (422)."""
    after: K | None = decode_cursor(paging.cursor, listing.key_type)
    with store.read() as db:
        rows = listing.rows(db, after, paging.limit + 1)
        shown = rows[: paging.limit]
        items = listing.items(db, shown)
    is_last = len(rows) <= paging.limit
    following = None if is_last else encode_cursor(listing.key(shown[-1]))
    content = {"items": [item.model_dump() for item in items], "next": following}
    headers = {} if following is None else {"Link": _link(paging.request, following)}
    return Response(msgspec.json.encode(content), headers=headers, media_type="application/json")


def decode_cursor(cursor: str | None, kind: Any) -> Any:
    """The key in a cursor. Raises ProblemError (422)."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        key = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=kind)
    except (ValueError, msgspec.MsgspecError) as error:
        raise invalid("query.cursor", "not a cursor of this list") from error
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, int) and abs(part) > LARGEST_INTEGER for part in parts):
        raise invalid("query.cursor", "not a cursor of this list")
    return key


def encode_cursor(key: object) -> str:
    """The opaque form of the key of a page's last item."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def _link(request: Request, cursor: str) -> str:
    return f'<{request.url.include_query_params(cursor=cursor)}>; rel="next"'
