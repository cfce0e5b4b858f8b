"""API keys: made, rotated, revoked, and whether what somebody shows is one.

A key reads `twin_<id>_<secret>`: the prefix so that scanners find one that leaked, the id to look
it up by, and 256 bits of randomness. What is stored is the secret's plain SHA-256: a slow hash and
a salt are there for what people choose, and nobody guesses 256 bits, nor prepares a table of them.

Pure, clock and randomness are given. Must never log a secret, nor keep one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from cloud.errors import ApiKeyError, NotAuthenticatedError
from cloud.security.actors import Actor, Role
from cloud.store.access_tables import ApiKey

PREFIX: Final = "twin_"
_TOKEN: Final = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")  # a JWT: its header begins so
LONGEST_NAME: Final = 32
_ID_BYTES, _SECRET_BYTES = 8, 32
_FORM: Final = re.compile(r"twin_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NAME: Final = re.compile(r"[\w.@ -]{1,32}")
_NOBODYS: Final = bytes(32)

Random = Callable[[int], bytes]


def make(
    name: str,
    role: Role,
    cohorts: Collection[str] | None,
    expires_at: float | None,
    by: str,
    now: float,
    random: Random,
) -> tuple[ApiKey, str]:
    """A new key: its row, and what its holder shows. Raises ApiKeyError."""
    if not _NAME.fullmatch(name):
        raise ApiKeyError(f"a name has 1 to {LONGEST_NAME} letters, digits, and any of ` _.@-`")
    if cohorts is not None and not cohorts:
        raise ApiKeyError("with no cohort at all it would open nothing")
    if expires_at is not None and expires_at <= now:
        raise ApiKeyError("it would have expired already")
    key_id, secret = random(_ID_BYTES).hex(), _secret(random)
    row = ApiKey(
        id=key_id,
        name=name,
        role=role,
        cohorts=None if cohorts is None else msgspec.json.encode(sorted(cohorts)).decode(),
        digest=_digest(secret),
        created_at=now,
        created_by=by,
        expires_at=expires_at,
    )
    return row, _shown(key_id, secret)


def rotate(key: ApiKey, overlap_s: float, now: float, random: Random) -> str:
    """Give it another secret; the old one works for `overlap_s` more. Raises ApiKeyError."""
    _require_alive(key, now)
    secret = _secret(random)
    key.former_digest, key.former_until = key.digest, now + overlap_s
    key.digest, key.rotated_at = _digest(secret), now
    return _shown(key.id, secret)


def revoke(key: ApiKey, now: float) -> None:
    """From now on it opens nothing; again is no news."""
    key.revoked_at = key.revoked_at or now


def cohorts_of(key: ApiKey) -> frozenset[str] | None:
    """Those that it opens; None: every one."""
    return None if key.cohorts is None else frozenset(msgspec.json.decode(key.cohorts))


def id_in(token: str) -> str | None:
    """The id in what has the form of a key."""
    match = _FORM.fullmatch(token)
    return match and match.group(1)


def check(token: str, key: ApiKey | None, now: float) -> tuple[Actor, float]:
    """Who shows `token`, and until when that may be believed without looking again.

    `key` is what is stored under its id. Raises NotAuthenticatedError, of which the caller is told
    nothing but that: the reason is for the log.
    """
    match = _FORM.fullmatch(token)
    if match is None:
        raise NotAuthenticatedError("it is no API key")
    shown = _digest(match.group(2))
    # Compared in constant time, and compared even where there is nothing to compare with.
    is_it = hmac.compare_digest(shown, key.digest if key else _NOBODYS)
    was_it = hmac.compare_digest(shown, (key and key.former_digest) or _NOBODYS)
    if key is None or not (is_it or was_it):
        raise NotAuthenticatedError(f"API key {match.group(1)} is unknown, or its secret wrong")
    if key.revoked_at is not None:
        raise NotAuthenticatedError(f"API key {key.id} was revoked")
    ends = [end for end in (key.expires_at, None if is_it else key.former_until) if end is not None]
    if any(end <= now for end in ends):
        raise NotAuthenticatedError(f"API key {key.id} has expired, or this secret of it")
    actor = Actor(f"key {key.id} ({key.name})", _role(key.role), cohorts_of(key))
    return actor, min(ends, default=float("inf"))


def _require_alive(key: ApiKey, now: float) -> None:
    if key.revoked_at is not None:
        raise ApiKeyError(f"key {key.id} was revoked, and that is for ever; make a new one")
    if key.expires_at is not None and key.expires_at <= now:
        raise ApiKeyError(f"key {key.id} has expired; make a new one")


def _role(stored: str) -> Role:
    role: Role = msgspec.convert(stored, Role)
    return role


def _secret(random: Random) -> str:
    return base64.urlsafe_b64encode(random(_SECRET_BYTES)).decode().rstrip("=")


def _shown(key_id: str, secret: str) -> str:
    return f"{PREFIX}{key_id}_{secret}"


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def without_secrets(text: str) -> str:
    """The same, where somebody has put a key or a token into what is no place for one."""
    return _TOKEN.sub("(a token)", _FORM.sub(rf"{PREFIX}\1_…", text))
