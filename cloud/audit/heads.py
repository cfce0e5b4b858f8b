"""Signed statements of where every vehicle's chain stood: so that no owner rewrites it unseen.

A statement holds the Merkle root over (vehicle, number, hash) of all vehicles, the hash of what
changed since the statement before, and that one's hash: like the signed tree heads of certificate
logs (RFC 6962, section 3.5), whoever keeps one copy elsewhere can tell any other history from it.
Pure. Must never be made of a chain that was not checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from cloud.audit import merkle
from cloud.audit.walk import Checkpoint, Heads
from cloud.errors import HeadsError
from common.errors import ContractError, SignatureError
from common.json_document import decode_document
from common.messages import Digest, UnixTime
from common.revision import GENESIS
from common.signing import Signer, TrustedKeys, check_signature, key_id

SCHEMA: Final = 1


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed. `changes` is the SHA-256 of the lines that changed, `root` of all of them."""

    schema: int = SCHEMA
    kind: Literal["chain_heads"] = "chain_heads"
    number: Annotated[int, msgspec.Meta(ge=1)]
    parent_hash: Digest
    made_at: UnixTime
    vehicles: Annotated[int, msgspec.Meta(ge=0)]
    changes: Digest
    root: Digest
    code_version: str


class Signed(msgspec.Struct, frozen=True):
    """A statement as it is stored and exported, with the lines that changed."""

    statement: str
    key_id: str
    signature: str
    lines: str

    @property
    def hash(self) -> str:
        """By which the next statement names it."""
        return _hash(self.statement)


@dataclass(frozen=True)
class Told:
    """What a row of statements says, and the last of them."""

    heads: Heads
    last: Statement | None = None


def make(
    before: Signed | None,
    heads: Mapping[str, Checkpoint],
    changed: Iterable[str],
    author: Signer,
    now: float,
    code_version: str,
) -> Signed:
    """The statement that follows `before`: `heads` are those of all vehicles."""
    lines = lines_of({one: heads[one] for one in changed})
    number = read(before).number + 1 if before else 1
    statement = Statement(
        number=number,
        parent_hash=before.hash if before else GENESIS,
        made_at=now,
        vehicles=len(heads),
        changes=_hash(lines),
        root=root_of(heads),
        code_version=code_version,
    )
    content = msgspec.json.encode(statement)
    return Signed(
        statement=content.decode(),
        key_id=key_id(author.public_key()),
        signature=author.sign(content).hex(),
        lines=lines,
    )


def read(signed: Signed) -> Statement:
    """What is signed, believed or not. Raises HeadsError."""
    try:
        return decode_document(signed.statement.encode(), Statement, SCHEMA)
    except ContractError as error:
        raise HeadsError(0, str(error)) from error


def check_author(signed: Signed, trusted: TrustedKeys) -> Statement:
    """A statement whose signature holds. Raises HeadsError."""
    statement = read(signed)
    try:
        check_signature(trusted, signed.key_id, signed.signature, signed.statement.encode())
    except SignatureError as error:
        raise HeadsError(statement.number, f"its signature fails ({error})") from error
    return statement


def newest(signed: Signed, heads: Mapping[str, Checkpoint], trusted: TrustedKeys) -> Heads:
    """The heads of all vehicles as one statement has them. Raises HeadsError."""
    statement = check_author(signed, trusted)
    if root_of(heads) != statement.root:
        raise HeadsError(statement.number, "the heads that are kept do not have its root")
    return Heads(dict(heads))


def fold(statements: Sequence[Signed], trusted: TrustedKeys) -> Told:
    """What a whole row of statements says, from the first on. Raises HeadsError.

    The signature of the last one covers those before it: each names its predecessor by hash.
    """
    if not statements:
        return Told(Heads())
    current: dict[str, Checkpoint] = {}
    earlier: dict[str, dict[int, str]] = {}
    before: Signed | None = None
    for signed in statements:
        statement = read(signed)
        _check_follows(statement, signed, before)
        for vehicle_id, head in heads_in(signed.lines, statement.number).items():
            known = current.get(vehicle_id)
            if known is not None and head.number <= known.number:
                raise HeadsError(statement.number, f"it takes vehicle {vehicle_id} back")
            current[vehicle_id] = head
            earlier.setdefault(vehicle_id, {})[head.number] = head.hash
        before = signed
    last = check_author(statements[-1], trusted)
    if root_of(current) != last.root:
        raise HeadsError(last.number, "what changed does not add up to its root")
    return Told(Heads(current, earlier), last)


def _check_follows(statement: Statement, signed: Signed, before: Signed | None) -> None:
    expected = read(before).number + 1 if before else 1
    if statement.number != expected:
        raise HeadsError(expected, f"it is missing; the next one is {statement.number}")
    if statement.parent_hash != (before.hash if before else GENESIS):
        raise HeadsError(statement.number, "it does not name the one before by its hash")
    if statement.changes != _hash(signed.lines):
        raise HeadsError(statement.number, "its lines do not have their hash")


def root_of(heads: Mapping[str, Checkpoint]) -> str:
    """The Merkle root over all vehicles, by id."""
    return merkle.root(_line(one, heads[one]).encode() for one in sorted(heads))


def lines_of(heads: Mapping[str, Checkpoint]) -> str:
    """One line for each vehicle, by id: id, number and hash."""
    return "".join(_line(one, heads[one]) + "\n" for one in sorted(heads))


def heads_in(lines: str, number: int) -> dict[str, Checkpoint]:
    """The inverse. Raises HeadsError (of statement `number`)."""
    found = {}
    for line in lines.splitlines():
        try:
            vehicle_id, revision, digest = line.split(" ")
            found[vehicle_id] = Checkpoint(int(revision), digest)
        except ValueError as error:
            raise HeadsError(number, f"it has a line that is none: {line[:80]!r}") from error
    return found


def _line(vehicle_id: str, head: Checkpoint) -> str:
    return f"{vehicle_id} {head.number} {head.hash}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
