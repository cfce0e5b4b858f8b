"""One write of an operator: by whom, once, in one transaction; or only tried (`dry_run`).

Must never keep an answer outside the transaction that it speaks of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel
from sqlmodel import Session

from cloud.api.access import Context, Here
from cloud.api.authority import Actor
from cloud.api.problems import ProblemError
from cloud.errors import KeyInUseError, KeyReusedError
from cloud.store import events, idempotency
from cloud.store.operator_tables import IdempotencyKey

ANONYMOUS: Final = "anonymous"
WRITE_STATUSES: Final = (404, 409, 412, 428)


@dataclass(frozen=True)
class Answer:
    """What a write answers."""

    body: BaseModel | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Once:
    """A request that writes; with a key it is carried out once, whoever sends it again."""

    here: Context
    key: str | None
    fingerprint: str
    dry_run: bool

    def write(self, actor: Actor, act: Callable[[Session], Answer]) -> Response:
        """Carry `act` out in a transaction and answer, or answer as the first time.

        Raises ProblemError: what `act` raises (nothing is written, nothing kept); 409 while the
        same key is at work, 422 where it came with another request.
        """
        try:
            with self.here.store.write() as db:
                response = self._answer(db, actor, act)
                if self.dry_run:
                    response.headers["Dry-Run"] = "true"
                    db.rollback()
                    events.forget(db)
        except KeyInUseError as error:
            raise ProblemError(409, str(error)) from error
        except KeyReusedError as error:
            raise ProblemError(422, str(error)) from error
        self.here.wake()
        return response

    def _answer(self, db: Session, actor: Actor, act: Callable[[Session], Answer]) -> Response:
        if self.key is None or self.dry_run:
            return _response(act(db))
        now = self.here.clock()
        known = idempotency.known(db, actor.name, self.key, self.fingerprint, now)
        if known is not None:
            headers = msgspec.json.decode(known.headers, type=dict[str, str])
            return _raw(known.body, known.status, {**headers, "Idempotency-Replayed": "true"})
        answer = act(db)
        response = _response(answer)
        db.add(
            IdempotencyKey(
                actor=actor.name,
                key=self.key,
                fingerprint=self.fingerprint,
                status=answer.status,
                headers=msgspec.json.encode(dict(answer.headers)),
                body=bytes(response.body),
                made_at=now,
            )
        )
        return response


async def _once(
    here: Here,
    request: Request,
    key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            min_length=1,
            max_length=255,
            description="The same key with the same request within a day is carried out once.",
        ),
    ] = None,
    *,
    dry_run: Annotated[bool, Query(description="Check and answer, but change nothing.")] = False,
) -> Once:
    digest = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    digest.update(await request.body())
    bare = key.strip('"') if key is not None else None
    return Once(here, bare or None, digest.hexdigest(), dry_run)


OnceOnly = Annotated[Once, Depends(_once)]


def named(actor: Actor, by: str | None) -> str:
    """Who it was: the authenticated name; only where nobody authenticates, what the body says."""
    return by if by and actor.name == ANONYMOUS else actor.name


def _response(answer: Answer) -> Response:
    body = b"" if answer.body is None else answer.body.model_dump_json().encode()
    return _raw(body, answer.status, answer.headers)


def _raw(body: bytes, status: int, headers: Mapping[str, str]) -> Response:
    kind = "application/json" if body else None
    return Response(body, status, headers=dict(headers), media_type=kind)
