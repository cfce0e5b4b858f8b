"""Walk stored revisions in order and find the first link of each vehicle that does not hold.

Pure: rows in, findings out. What a trusted signed head covers is proven by hashes alone: those of
the chain up to it, and the head's own signature. Must never take a row's word for anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from common.errors import ChainError, SignatureError
from common.revision import GENESIS, REVISION_SCHEMA
from common.signing import TrustedKeys, check_signature


class Link(NamedTuple):
    """A revision as the database has it; an editor can have put anything in any column."""

    vehicle_id: str
    number: int
    content: object
    hash: str
    bundle: str
    odometer: float
    cause_message_id: str
    created_at: float
    kind: str
    parent_hash: str
    key_id: str
    signature: str
    inputs: object


@dataclass(frozen=True)
class Verified:
    """A vehicle's chain that holds: how many revisions, and the newest one's hash and number."""

    vehicle_id: str
    revisions: int
    head: str
    number: int = field(default=0, compare=False)


Found = Verified | ChainError


class Checkpoint(NamedTuple):
    """What a signed statement says of a vehicle: the hash of its revision `number`."""

    number: int
    hash: str


@dataclass(frozen=True)
class Heads:
    """What trusted statements say. `newest` by vehicle; `earlier` checkpoints must hold as well."""

    newest: Mapping[str, Checkpoint] = field(default_factory=dict)
    earlier: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


NO_HEADS: Final = Heads()


class _Cause(msgspec.Struct):
    message_id: str
    kind: str


class _Content(msgspec.Struct):
    """The fields of a revision that a link is checked by: the others are in its hash."""

    schema: int
    vehicle_id: str
    number: int
    parent_hash: str
    bundle: str
    odometer: float
    created_at: float
    cause: _Cause
    resumes_after: int = 0
    inputs_hash: str = ""


_decode = msgspec.json.Decoder(_Content).decode


def walk(
    links: Iterable[Link], trusted: TrustedKeys, heads: Heads, *, every_signature: bool
) -> Iterator[Found]:
    """One finding for each vehicle of `links`, which come by vehicle and number.

    With `every_signature` also those of revisions that a trusted head covers are checked.
    """
    chain: _Chain | None = None
    for link in links:
        if chain is None or link.vehicle_id != chain.vehicle_id:
            if chain is not None:
                yield chain.end()
            chain = _Chain(link.vehicle_id, trusted, heads, every_signature=every_signature)
        if chain.problem is None:
            chain.add(link)
    if chain is not None:
        yield chain.end()


def resumed(
    vehicle_id: str, head: Checkpoint, links: Iterable[Link], trusted: TrustedKeys
) -> Found:
    """The finding on the links after a head that is known to hold; every signature is checked."""
    chain = _Chain(vehicle_id, trusted, NO_HEADS, every_signature=True)
    if head.number:
        chain.start(head)
    for link in links:
        if chain.problem is None:
            chain.add(link)
    return chain.end()


class _Chain:
    """One vehicle's chain as far as it was walked."""

    def __init__(
        self, vehicle_id: str, trusted: TrustedKeys, heads: Heads, *, every_signature: bool
    ) -> None:
        self.vehicle_id = vehicle_id
        self.problem: ChainError | None = None
        self._trusted = trusted
        self._head = heads.newest.get(vehicle_id)
        self._earlier = heads.earlier.get(vehicle_id, {})
        self._covered = 0 if every_signature or self._head is None else self._head.number
        self._count, self._number, self._hash = 0, 0, GENESIS

    def start(self, head: Checkpoint) -> None:
        """Go on from a head instead of from the beginning."""
        self._number, self._hash = head

    def add(self, link: Link) -> None:
        """The next link; after one that does not hold nothing is looked at any more."""
        try:
            self._check(link)
        except ChainError as error:
            self.problem = error

    def end(self) -> Found:
        """What is to be said of the vehicle."""
        if self.problem is None and self._head is not None and self._number < self._head.number:
            told = f"a signed statement knows it, but the chain ends at {self._number}"
            self.problem = ChainError(self.vehicle_id, self._number + 1, told)
        return self.problem or Verified(self.vehicle_id, self._count, self._hash, self._number)

    def _check(self, link: Link) -> None:
        content = as_bytes(link.content)
        found = hashlib.sha256(content).hexdigest()
        if found != link.hash:
            self._break(self._number + 1, "its content does not have the recorded hash")
        try:
            told = _decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._break(self._number + 1, f"its content cannot be read ({error})")
        number = max(self._number, told.resumes_after) + 1
        if (told.vehicle_id, told.number) != (self.vehicle_id, number):
            self._break(number, f"it is {told.vehicle_id}'s {told.number}")
        if told.schema != REVISION_SCHEMA:
            self._break(number, f"its schema is {told.schema}, this software reads 1")
        if told.parent_hash != self._hash:
            self._break(number, "its parent hash is not its predecessor's hash")
        self._check_columns(link, told)
        self._check_inputs(link, told)
        if number > self._covered:
            self._check_signature(link, content, number)
        self._check_heads(number, found)
        self._count, self._number, self._hash = self._count + 1, number, found

    def _check_columns(self, link: Link, told: _Content) -> None:
        has = (link.number, link.bundle, link.odometer, link.cause_message_id, link.created_at)
        says = (told.number, told.bundle, told.odometer, told.cause.message_id, told.created_at)
        chained = (link.kind, link.parent_hash) == (told.cause.kind, told.parent_hash)
        if has != says or not chained:
            self._break(told.number, "its columns differ from its content")

    def _check_inputs(self, link: Link, told: _Content) -> None:
        kept = "" if link.inputs is None else hashlib.sha256(as_bytes(link.inputs)).hexdigest()
        if kept != told.inputs_hash:
            self._break(told.number, "what it was made from was edited: it has another hash")

    def _check_signature(self, link: Link, content: bytes, number: int) -> None:
        try:
            check_signature(self._trusted, link.key_id, link.signature, content)
        except (SignatureError, AttributeError, TypeError, ValueError) as error:
            self._break(number, f"its signature fails ({error})")

    def _check_heads(self, number: int, found: str) -> None:
        expected = self._earlier.get(number)
        if self._head is not None and self._head.number == number:
            expected = self._head.hash
        if expected is not None and expected != found:
            self._break(number, "a signed statement knows another revision of that number")

    def _break(self, number: int, problem: str) -> None:
        raise ChainError(self.vehicle_id, number, problem)


def as_bytes(content: object) -> bytes:
    """SQLite lets an editor store anything in any column."""
    return content if isinstance(content, bytes) else str(content).encode()
