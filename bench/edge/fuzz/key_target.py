"""Chains of statements about keys: forged, out of turn, and absurd ones that a trusted key signed.

Promised: nothing but the contract's errors is raised; whoever may sign afterwards was named by
somebody who might sign before; a key that was revoked never may again; a restart believes the same.
"""

from __future__ import annotations

import json
from functools import cache
from random import Random
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bench.edge.fuzz.mutation import json_of
from bench.edge.fuzz.target import Plain, Target, UnsignedAcceptanceError, promise
from bench.edge.fuzz.vehicle import FOREIGN_KEY, KEY, new_state, the_vehicle
from common.errors import ContractError
from common.messages import KeyChain, SignedStatement, encode
from common.signing import key_id
from common.trust import KeyStatement, TrustStore, sign_statement
from edge_agent.parameters.key_intake import restore_trust, take_statements
from edge_agent.storage.state import State

NEXT_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
SIGNERS: Final = (KEY, NEXT_KEY, FOREIGN_KEY)


def target() -> Target:
    """Seeds: a second key; then the first one revoked by the second."""
    first = KeyStatement(kind="key_statement", number=1, keys=[_raw(KEY), _raw(NEXT_KEY)])
    second = KeyStatement(
        kind="key_statement", number=2, keys=[_raw(NEXT_KEY)], revoked=[key_id(KEY.public_key())]
    )
    chain = [sign_statement(first, KEY), sign_statement(second, NEXT_KEY)]
    seeds = [encode(KeyChain(statements=chain[:1])), encode(KeyChain(statements=chain))]
    return Target("keys", tuple(seeds), _mutate, check)


def check(data: bytes) -> None:
    """What the vehicle believes after the chain, and after a restart."""
    installed, state = the_vehicle().who.trusted, _state()
    try:
        after = take_statements(data, installed, state)
    except ContractError:
        return
    _check_named(data, after)
    promise(not after.keys.keys() & after.revoked, "a key may sign that was revoked")
    again = restore_trust(state, installed)
    with state.transaction() as db:
        db.execute("DELETE FROM anchor")
    same = (again.number, again.keys.keys(), again.revoked)
    promise(
        same == (after.number, after.keys.keys(), after.revoked), "a restart believes otherwise"
    )


def _check_named(data: bytes, after: TrustStore) -> None:
    """Walked a second time, with another reader and from the keys' raw bytes."""
    known = {name: key.public_bytes_raw() for name, key in the_vehicle().who.trusted.keys.items()}
    for signed in json.loads(data)["statements"]:
        content = signed["statement"].encode()
        if _is_signed(known.get(signed["key_id"]), signed["signature"], content):
            named = [bytes.fromhex(raw) for raw in json.loads(content)["keys"]]
            known.update((key_id(Ed25519PublicKey.from_public_bytes(raw)), raw) for raw in named)
    strangers = after.keys.keys() - known.keys()
    if strangers:
        raise UnsignedAcceptanceError(f"keys {sorted(strangers)} were named by nobody trusted")


def _is_signed(raw: bytes | None, signature: str, content: bytes) -> bool:
    if raw is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(bytes.fromhex(signature), content)
    except (InvalidSignature, ValueError):
        return False
    return True


@cache
def _state() -> State:
    return new_state("keys.db")


def _raw(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex()


def _mutate(data: bytes, random: Random, plain: Plain) -> bytes:
    """The chain, or what one of its statements says, signed again or not, by whom."""
    try:
        chain: dict[str, Any] = json.loads(data)
        statements: list[dict[str, Any]] = chain["statements"]
        at = random.randrange(len(statements))
        content = statements[at]["statement"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return plain(data)
    way = random.randrange(6)
    if way == 0:
        return json_of(data, random, plain)
    if way == 1:
        statements.insert(at, random.choice(statements))
    else:
        text = json_of(content, random, plain).decode(errors="replace")
        signed = _signed(text, random.choice(SIGNERS))
        statements[at] = {**statements[at], "statement": text} if way == 2 else signed  # noqa: PLR2004
    return json.dumps(chain).encode()


def _signed(text: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    signature = key.sign(text.encode()).hex()
    made = SignedStatement(key_id=key_id(key.public_key()), signature=signature, statement=text)
    built: dict[str, Any] = msgspec.to_builtins(made)
    return built
