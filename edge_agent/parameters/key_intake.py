"""Take statements about keys in: believed one after the other, kept on disk before they count.

They outlive a bundle and every revision. Must never forget a revocation that was believed once.
"""

from __future__ import annotations

import logging
import sqlite3

from common.errors import ContractError
from common.messages import KeyChain, decode, encode
from common.trust import TrustStore, follow, read_statement
from edge_agent.storage import kept
from edge_agent.storage.state import State

log = logging.getLogger(__name__)

ANCHOR = "keys"


def restore_trust(state: State, installed: TrustStore) -> TrustStore:
    """What was believed before; what was installed, where nothing else is known or readable."""
    try:
        chain = _kept(state.connection)
        return installed if chain is None else follow(installed, chain.statements)
    except (ContractError, sqlite3.Error) as error:
        log.error("key_statements_not_restored why=%r", str(error))  # noqa: TRY400 - names the cause
        return installed


def take_statements(payload: bytes, trusted: TrustStore, state: State) -> TrustStore:
    """What is believed from now on; nothing new: the same as before.

    Raises ContractError (nothing is believed of such a chain), StorageError (nothing has changed).
    """
    chain = decode(payload, KeyChain)
    news = [s for s in chain.statements if read_statement(s).number > trusted.number]
    if not news:
        return trusted
    after = follow(trusted, news)
    with state.transaction() as db:
        known = _kept(db)
        statements = [*(known.statements if known else ()), *news]
        kept.write_anchor(db, ANCHOR, encode(KeyChain(statements=statements)))
    told = "keys_changed statement=%d keys=%s revoked=%s"
    log.warning(told, after.number, sorted(after.keys), sorted(after.revoked))
    return after


def _kept(db: sqlite3.Connection) -> KeyChain | None:
    raw = kept.read_anchor(db, ANCHOR)
    return None if raw is None else decode(raw, KeyChain)
