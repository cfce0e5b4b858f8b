"""The ways in: an API key, an access token of the OIDC issuer, or, on loopback, nothing at all.

A door blocks while it looks, so what it found stands in memory for a few seconds, by the digest of
what was shown. A key that was revoked opens for that long still. Must never log what was shown.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from cloud.errors import NotAuthenticatedError, StoreUnavailableError
from cloud.security import api_keys
from cloud.security.actors import Actor
from cloud.store import api_keys as stored_keys
from cloud.store.database import Store

log = logging.getLogger(__name__)

REMEMBERED_S: Final = 5.0
MOST_REMEMBERED: Final = 1000
USE_NOTED_EVERY_S: Final = 60.0


class Door(Protocol):
    """Tells who shows a token."""

    def open(self, token: str) -> tuple[Actor, float]:
        """Who it is, and until when (UNIX seconds) it may be believed. Blocks.

        Raises NotAuthenticatedError, TransientError.
        """
        ...


class KeyDoor:
    """API keys of the database."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store, self._clock = store, clock

    def open(self, token: str) -> tuple[Actor, float]:
        """As `Door.open` says."""
        key_id, now = api_keys.id_in(token), self._clock()
        if key_id is None:
            raise NotAuthenticatedError("it has not the form of an API key")
        with self._store.read() as db:
            key = stored_keys.find(db, key_id)
        found = api_keys.check(token, key, now)
        if key is not None and now - (key.last_used_at or 0.0) >= USE_NOTED_EVERY_S:
            self._note_use(key_id, now)
        return found

    def _note_use(self, key_id: str, now: float) -> None:
        try:
            with self._store.write() as db:
                stored_keys.note_use(db, key_id, now)
        except StoreUnavailableError as error:  # whoever may read need not wait for a note
            log.warning("api_key_use_not_noted key=%s why=%r", key_id, str(error))


class Doors:
    """All of them, and who came in by which a moment ago. Used from one thread, but for `open`."""

    def __init__(self, keys: Door, tokens: Door | None, clock: Callable[[], float]) -> None:
        self._keys, self._tokens, self._clock = keys, tokens, clock
        self._recent: OrderedDict[bytes, tuple[Actor, float]] = OrderedDict()

    def known(self, token: str) -> Actor | None:
        """Who came in with this a moment ago. Does not block."""
        actor, until = self._recent.get(_digest(token), (None, 0.0))
        return actor if self._clock() < until else None

    def open(self, token: str) -> Actor:
        """Who it is. Blocks. Raises NotAuthenticatedError, TransientError."""
        now = self._clock()
        actor, until = self._door_of(token).open(token)
        self._recent[_digest(token)] = (actor, min(until, now + REMEMBERED_S))
        if len(self._recent) > MOST_REMEMBERED:
            self._recent.popitem(last=False)
        return actor

    def _door_of(self, token: str) -> Door:
        if token.startswith(api_keys.PREFIX):
            return self._keys
        if self._tokens is None:
            raise NotAuthenticatedError("it is no API key, and there is no [oidc] issuer")
        return self._tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
