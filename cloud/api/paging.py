"""Cursor pages: opaque cursors, the `next` field and the Link header (RFC 8288).

Must never let an unknown query parameter pass in silence.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Generic, TypeVar

import msgspec
from fastapi import Query, Request, Response, params
from pydantic import BaseModel, Field

from cloud.api.problems import invalid

T = TypeVar("T")
K = TypeVar("K")
Row = TypeVar("Row")

DEFAULT_LIMIT: Final = 50
LARGEST_INTEGER: Final = 2**63 - 1  # that SQLite can compare with
LARGEST_LIMIT: Final = 500

Limit = Annotated[
    int, Query(ge=1, le=LARGEST_LIMIT, description="How many items a page has at most.")
]
Cursor = Annotated[
    str | None, Query(max_length=512, description="`next` of the page before; none for the first.")
]


class Page(BaseModel, Generic[T]):
    """A page of a list. `next` goes into `cursor` to get the following page; null on the last."""

    items: list[T]
    next: str | None = Field(examples=["WyJjYXItNyJd"])


def only(*names: str) -> params.Depends:
    """A dependency that refuses every query parameter but these."""

    def check(request: Request) -> None:
        for name in request.query_params:
            if name not in names:
                known = ", ".join(names) or "none"
                raise invalid(f"query.{name}"[:80], f"unknown parameter; known: {known}")

    return params.Depends(check)


def decode_cursor(cursor: str | None, kind: type[K]) -> K | None:
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


def cut(
    rows: Sequence[Row], limit: int, key: Callable[[Row], object]
) -> tuple[Sequence[Row], str | None]:
    """Of `limit` + 1 rows asked for, the page and the cursor of the next one."""
    if len(rows) <= limit:
        return rows, None
    page = rows[:limit]
    return page, encode_cursor(key(page[-1]))


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Set the Link header when there is a next page."""
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{url}>; rel="next"'
