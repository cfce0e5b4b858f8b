"""What the command line writes and shows of keys, and of roll-backs.

Must never touch a revision.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlmodel import Session, func, select

from cloud.commands.reports import show
from cloud.location import Location
from cloud.security import key_orders
from cloud.security.key_orders import Keys
from cloud.store import key_statements, locks, roll_back_orders
from cloud.store.database import Reader, Store
from cloud.store.tables import RollBackOrder, SigningKey, Vehicle
from common.signing import load_private_key, load_public_key


def rotate(database: Location, signed_by: Path, new: Path, why: str, now: float) -> int:
    """The statement's number. Raises StoreError, KeyFileError, KeyOrderError."""
    added = load_public_key(new)
    return _state(database, signed_by, why, now, lambda keys: key_orders.rotated(keys, added))


def revoke(database: Location, signed_by: Path, name: str, why: str, now: float) -> int:
    """The statement's number. Raises StoreError, KeyFileError, KeyOrderError."""
    return _state(database, signed_by, why, now, lambda keys: key_orders.revoked(keys, name))


def _state(
    database: Location, signed_by: Path, why: str, now: float, change: Callable[[Keys], Keys]
) -> int:
    author = load_private_key(signed_by)
    store = Store(database)
    try:
        with store.write() as db:
            locks.exclusive(db, "state keys")
            keys = change(_now(db))
            signed = key_orders.statement_of(keys, author, why[:256], now)
            key_statements.add(db, keys.number, signed, now)
    finally:
        store.close()
    return keys.number


def _now(db: Session) -> Keys:
    remembered = {row.key_id: row.public_key for row in db.exec(select(SigningKey))}
    return key_orders.keys_now(key_statements.statements(db), remembered)


def list_keys(database: Location, *, as_json: bool) -> None:
    """Print every key. Raises StoreError."""
    store = Reader(database)
    with store.read() as db:
        keys = _now(db)
        known = func.coalesce(Vehicle.key_statement, 0) >= keys.number
        behind = db.exec(select(func.count()).select_from(Vehicle).where(~known)).one()
    store.close()
    rows = [{"key_id": name, "may_sign": True} for name in sorted(keys.may_sign)]
    rows += [{"key_id": name, "may_sign": False} for name in sorted(keys.revoked)]
    more = {"statement": keys.number, "vehicles_behind": behind}
    show([row | more for row in rows], ["key_id", "may_sign", *more], as_json=as_json)


def order_roll_back(
    database: Location, vehicle_id: str, to: int, by: str, why: str, now: float
) -> RollBackOrder:
    """Keep the order. Raises StoreError, RollBackError."""
    store = Store(database)
    wanted = RollBackOrder(
        vehicle_id=vehicle_id, to_revision=to, ordered_by=by[:64], why=why[:256], ordered_at=now
    )
    try:
        with store.write() as db:
            return roll_back_orders.place(db, wanted)
    finally:
        store.close()
