"""Say which keys may sign from now on: the next statement, signed by the key of whoever says so.

Pure. Must never name a key again that was revoked, nor leave vehicles without any.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.errors import KeyOrderError
from common.messages import SignedStatement
from common.signing import Signer, key_id
from common.trust import MAX_STATEMENTS, KeyStatement, read_statement, sign_statement

MOST_KEYS = 8


@dataclass(frozen=True)
class Keys:
    """Public keys (raw, hex) by id that may sign, and ids that never may again."""

    number: int
    may_sign: dict[str, str]
    revoked: Collection[str] = ()


def keys_now(statements: Sequence[SignedStatement], remembered: dict[str, str]) -> Keys:
    """What the last statement says; before the first one, the keys that have signed here."""
    if not statements:
        return Keys(0, dict(remembered))
    last = read_statement(statements[-1])
    public = {key_id(Ed25519PublicKey.from_public_bytes(bytes.fromhex(k))): k for k in last.keys}
    return Keys(last.number, public, tuple(last.revoked))


def rotated(now: Keys, new: Ed25519PublicKey) -> Keys:
    """The new key may sign as well. Raises KeyOrderError."""
    name = key_id(new)
    if name in now.revoked:
        raise KeyOrderError(f"key {name} was revoked, and that is for ever")
    if name in now.may_sign:
        raise KeyOrderError(f"key {name} may sign already")
    if len(now.may_sign) >= MOST_KEYS:
        raise KeyOrderError(f"{MOST_KEYS} keys may sign; revoke one first")
    may_sign = {**now.may_sign, name: new.public_bytes_raw().hex()}
    return replace(now, number=now.number + 1, may_sign=may_sign)


def revoked(now: Keys, name: str) -> Keys:
    """The key may never sign again. Raises KeyOrderError."""
    if name not in now.may_sign:
        raise KeyOrderError(f"key {name} is none of those that may sign")
    rest = {other: key for other, key in now.may_sign.items() if other != name}
    if not rest:
        raise KeyOrderError(f"key {name} is the last one; rotate to another first")
    return Keys(now.number + 1, rest, (*now.revoked, name))


def statement_of(keys: Keys, author: Signer, why: str, issued_at: float) -> SignedStatement:
    """What vehicles are told. Raises KeyOrderError when they can keep no more."""
    if keys.number > MAX_STATEMENTS:
        raise KeyOrderError(
            f"{MAX_STATEMENTS} statements were made, as many as a vehicle keeps; install the keys "
            "anew on the vehicles, with the keys of now as `trusted_keys`"
        )
    made = KeyStatement(
        kind="key_statement",
        number=keys.number,
        keys=list(keys.may_sign.values()),
        revoked=list(keys.revoked),
        why=why,
        issued_at=issued_at,
    )
    return sign_statement(made, author)


def require_may_sign(keys: Keys, name: str) -> None:
    """Raises KeyOrderError: vehicles would refuse everything that this key signs."""
    if keys.number and name not in keys.may_sign:
        how = "was revoked" if name in keys.revoked else "is not named by the last key statement"
        raise KeyOrderError(f"the service's own key {name} {how}; give another in [keys] private")
