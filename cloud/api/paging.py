"""Lists: one dependency for page and format, opaque cursors, the Link header, files.

Must never let a cursor of another list pass.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from fastapi import Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sqlmodel import Session

from cloud.api.export import MEDIA, Chunk, Format, chosen, encoded
from cloud.api.problems import ProblemError, invalid
from cloud.store.database import Store

T = TypeVar("T")
K = TypeVar("K")
Row = TypeVar("Row")

DEFAULT_LIMIT: Final = 50
LARGEST_INTEGER: Final = 2**63 - 1  # that a database can compare with
LARGEST_LIMIT: Final = 500
EXPORT_PAGE: Final = 1000
MOST_EXPORTED: Final = 1_000_000


class Page(BaseModel, Generic[T]):
    """A page of a list. `next` goes into `cursor` to get the following page; null on the last."""

    items: list[T]
    next: str | None = Field(examples=["WyJjYXItNyJd"])


@dataclass(frozen=True)
class Paging:
    """Which page of a list is asked for, and as what; `limit` None: none was given."""

    request: Request
    limit: int | None
    cursor: str | None
    format: Format


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
        int | None,
        Query(
            ge=1,
            le=LARGEST_LIMIT,
            description=f"How many items at most [default: {DEFAULT_LIMIT}; of a file, all].",
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        Query(max_length=512, description="`next` of the page before; none for the first."),
    ] = None,
    format_: Annotated[
        Format | None,
        Query(alias="format", description="Before the Accept header. All but json are files."),
    ] = None,
) -> Paging:
    found = chosen(format_, request.headers.get("accept"))
    if found is None:
        raise ProblemError(406, f"This list is given as {', '.join(MEDIA.values())}.")
    return Paging(request, limit, cursor, found)


Paged = Annotated[Paging, Depends(_paging)]


def answer(store: Store, paging: Paging, listing: Listing[Row, K]) -> Response:
    """The page, or the file, that is asked for. Raises ProblemError (422)."""
    after = decode_cursor(paging.cursor, listing.key_type)
    if paging.format != "json":
        return _file(store, paging, listing, after)
    items, following = _read(store, listing, after, paging.limit or DEFAULT_LIMIT)
    content: dict[str, object] = {"items": [item.model_dump() for item in items], "next": None}
    headers = {}
    if following is not None:
        content["next"] = cursor = encode_cursor(following)
        headers["Link"] = _link(paging.request, cursor)
    return Response(msgspec.json.encode(content), headers=headers, media_type="application/json")


def _read(
    store: Store, listing: Listing[Row, K], after: Any, limit: int
) -> tuple[Sequence[BaseModel], Any]:
    """Items, and the key behind which there are more (None: there are none)."""
    with store.read() as db:
        rows = listing.rows(db, after, limit + 1)
        shown = rows[:limit]
        items = listing.items(db, shown)
    return items, listing.key(shown[-1]) if len(rows) > limit else None


def _file(store: Store, paging: Paging, listing: Listing[Row, K], after: Any) -> StreamingResponse:
    """The whole list from the cursor on; each page in a transaction of its own."""
    first = _read(store, listing, after, min(paging.limit or EXPORT_PAGE, EXPORT_PAGE))
    kind = _item_type(paging.request)
    chunks = _chunks(store, listing, first, paging.limit or MOST_EXPORTED)
    name = "-".join(_words(paging.request.url.path)) + "." + paging.format
    return StreamingResponse(
        encoded(paging.format, kind, chunks),
        media_type=MEDIA[paging.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _chunks(
    store: Store,
    listing: Listing[Row, K],
    first: tuple[Sequence[BaseModel], Any],
    most: int,
) -> Iterator[Chunk]:
    """`first` has been read, so that a wrong question is a problem before a file begins."""
    items, following = first
    left = most - len(items)
    yield items
    while following is not None and left > 0:
        items, following = _read(store, listing, following, min(left, EXPORT_PAGE))
        left -= len(items)
        yield items
    if following is not None:
        yield encode_cursor(following)


def _item_type(request: Request) -> type[BaseModel]:
    """What the list is of, as its route declares it."""
    page: Any = request.scope["route"].response_model
    kind: type[BaseModel] = page.model_fields["items"].annotation.__args__[0]
    return kind


def _words(path: str) -> list[str]:
    """Of a path, what names the file."""
    return [re.sub(r"[^A-Za-z0-9_-]", "_", word) for word in path.split("/")[3:]]


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
