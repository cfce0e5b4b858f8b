"""The cloud's signed word that nothing newer is held back: an answer to a vehicle's own question.

A vehicle's clock cannot be trusted, so a statement is fresh because it repeats a number that the
vehicle has just drawn, not because of a date in it. Pure. Must never take an old answer for a new
one.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from common.errors import FreshnessError, SignatureError
from common.json_document import decode_document
from common.messages import Count, Identifier, MessageId, RevisionNumber, SignedFreshness
from common.signing import Signer, key_id
from common.trust import TrustStore

FRESHNESS_SCHEMA: Final = 1


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """The newest revision that stands for the vehicle's bundle, and the last key statement."""

    schema: int = FRESHNESS_SCHEMA
    kind: Literal["freshness"]
    vehicle_id: Identifier
    nonce: MessageId
    revision: RevisionNumber
    key_statement: Count


def vouch(freshness: Freshness, key: Signer) -> SignedFreshness:
    """The word, signed."""
    content = msgspec.json.encode(freshness)
    return SignedFreshness(
        key_id=key_id(key.public_key()),
        signature=key.sign(content).hex(),
        freshness=content.decode(),
    )


def believed(
    signed: SignedFreshness, trusted: TrustStore, vehicle_id: str, nonce: str
) -> Freshness:
    """The answer to the question `nonce`. Raises FreshnessError, MalformedMessageError."""
    content = signed.freshness.encode()
    try:
        trusted.check(signed.key_id, signed.signature, content)
    except SignatureError as error:
        raise FreshnessError(error.problem, error.reason) from error
    found = decode_document(content, Freshness, FRESHNESS_SCHEMA)
    if found.vehicle_id != vehicle_id:
        raise FreshnessError(f"it is addressed to {found.vehicle_id}", "wrong_vehicle")
    if found.nonce != nonce:
        raise FreshnessError("it answers another question than the last one", "expired")
    return found
