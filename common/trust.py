"""Which keys a vehicle believes, and how that changes without touching it: numbered statements.

A statement names every key that may sign from now on, and those that never may again. It is signed
by a root key or, where none is set apart, by a key that may sign now; each follows the one before
by one, as the root metadata of TUF does, so that a vehicle that was away walks them all.

Pure. Must never believe a statement out of its turn, nor a key again that was revoked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.errors import KeyStatementError, SignatureError
from common.json_document import decode_document
from common.messages import KeyId, SignedStatement, UnixTime
from common.signing import Signer, TrustedKeys, check_signature, key_id

STATEMENT_SCHEMA: Final = 1
# A vehicle keeps them all, so that no revocation is ever forgotten, and they travel in one message.
MAX_STATEMENTS: Final = 48

PublicKey = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class KeyStatement(msgspec.Struct, frozen=True, kw_only=True):
    """Every key (32 raw bytes as hex) that may sign from now on; ids that are revoked for ever.

    `kind` keeps it from being taken for anything else that the same key signs.
    """

    schema: int = STATEMENT_SCHEMA
    kind: Literal["key_statement"]
    number: Annotated[int, msgspec.Meta(ge=1, le=MAX_STATEMENTS)]
    keys: Annotated[list[PublicKey], msgspec.Meta(min_length=1, max_length=8)]
    revoked: Annotated[list[KeyId], msgspec.Meta(max_length=64)] = []
    why: Annotated[str, msgspec.Meta(max_length=256)] = ""
    issued_at: UnixTime = 0.0


@dataclass(frozen=True)
class TrustStore:
    """Keys by id. `keys` may sign; `roots` may sign statements (None: whoever may sign now).

    `former` keys could once, `revoked` ids never again; `number` is that of the last statement.
    """

    keys: TrustedKeys
    roots: TrustedKeys | None = None
    revoked: frozenset[str] = frozenset()
    former: TrustedKeys = field(default_factory=dict)
    number: int = 0

    def check(self, name: str, signature: str, content: bytes) -> None:
        """Believe content that a key signed which may sign now. Raises SignatureError."""
        if name in self.revoked:
            raise SignatureError(f"key {name} was revoked", "revoked_key")
        check_signature(self.keys, name, signature, content)

    def check_kept(self, name: str, signature: str, content: bytes) -> None:
        """Believe what was believed before: its key may have gone since. Raises SignatureError."""
        check_signature({**self.former, **self.keys}, name, signature, content)


def sign_statement(statement: KeyStatement, key: Signer) -> SignedStatement:
    """A statement with the signature of its author."""
    content = msgspec.json.encode(statement)
    return SignedStatement(
        key_id=key_id(key.public_key()),
        signature=key.sign(content).hex(),
        statement=content.decode(),
    )


def follow(store: TrustStore, statements: Iterable[SignedStatement]) -> TrustStore:
    """What is believed after these statements; those that are known already change nothing.

    Before the first one is believed, those by keys that the installation never knew are passed
    over: it may have been made after a rotation. Raises KeyStatementError at the first that is not
    signed as it must be or not next in turn, and when none is by a key that is known.
    """
    unknown: KeyStatementError | None = None
    for signed in statements:
        try:
            store = _followed(store, signed)
        except KeyStatementError as error:
            if store.number or error.reason != "untrusted_key":
                raise
            unknown = error
    if unknown is not None and not store.number:
        raise unknown
    return store


def read_statement(signed: SignedStatement) -> KeyStatement:
    """What is signed, believed or not. Raises UnknownSchemaError, MalformedMessageError."""
    return decode_document(signed.statement.encode(), KeyStatement, STATEMENT_SCHEMA)


def _followed(store: TrustStore, signed: SignedStatement) -> TrustStore:
    statement = read_statement(signed)
    if statement.number <= store.number:
        return store
    if store.number and statement.number != store.number + 1:
        problem = f"number {statement.number} does not follow {store.number}"
        raise KeyStatementError(problem, "not_next")
    _check_author(store, signed)
    keys = {key_id(key): key for key in map(_public_key, statement.keys)}
    revoked = store.revoked | set(statement.revoked)
    if keys.keys() & revoked:
        raise KeyStatementError("it names a key that was revoked", "revoked_key")
    return TrustStore(
        keys=keys,
        roots=store.roots,
        revoked=revoked,
        former=_without({**store.former, **store.keys}, keys),
        number=statement.number,
    )


def _check_author(store: TrustStore, signed: SignedStatement) -> None:
    authors = store.keys if store.roots is None else store.roots
    if signed.key_id in store.revoked:
        raise KeyStatementError(f"key {signed.key_id} was revoked", "revoked_key")
    try:
        check_signature(authors, signed.key_id, signed.signature, signed.statement.encode())
    except SignatureError as error:
        raise KeyStatementError(error.problem, error.reason) from error


def _public_key(raw: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(raw))


def _without(keys: TrustedKeys, others: Mapping[str, object]) -> TrustedKeys:
    return {name: key for name, key in keys.items() if name not in others}
