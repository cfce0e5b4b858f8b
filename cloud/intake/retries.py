"""Take a message of the quarantine in again, as if its vehicle had just sent it.

Must never change the message, nor take in again what speaks only of the moment it was sent in.
"""

from __future__ import annotations

from typing import Final

from sqlmodel import Session, col, update

from cloud.bundles import Catalogue
from cloud.errors import CalibrationFailedError, RetryError
from cloud.intake.interpretation import interpret
from cloud.store import events
from cloud.store.facts import Recorder
from cloud.store.tables import Breach as BreachRow
from cloud.store.tables import Quarantine, Vehicle
from common.errors import ContractError
from common.messages import Breach, Status
from common.release import Fetch

_FAILED: Final = CalibrationFailedError.__name__


def retry(db: Session, row: Quarantine, catalogue: Catalogue, now: float, actor: str) -> None:
    """The message becomes a fact and leaves the quarantine. Raises RetryError: why it stays.

    A breach over which the calibration failed is pending again; one that comes too late by now is
    declined as any other.
    """
    number = row.id or 0
    if len(row.payload) != row.payload_bytes:
        raise RetryError(number, "only its beginning is kept; its vehicle must send it again")
    try:
        message = interpret(row.topic, row.payload, catalogue)
    except ContractError as error:
        raise RetryError(number, str(error).rstrip(".")) from error
    if isinstance(message, Status | Fetch):
        raise RetryError(number, "it speaks of the moment in which it was sent")
    recorder = Recorder(db, [message], now)
    try:
        recorder.record(message, retained=True)
    except ContractError as error:
        raise RetryError(number, str(error).rstrip(".")) from error
    recorder.finish()
    if isinstance(message, Breach) and row.error == _FAILED:
        _reopen(db, message)
    db.delete(row)
    vehicle = db.get(Vehicle, message.vehicle_id)
    if vehicle is not None:
        events.of_vehicle(
            db, "quarantine.retried", now, vehicle, actor=actor, topic=row.topic, error=row.error
        )


def _reopen(db: Session, message: Breach) -> None:
    declined = update(BreachRow).where(
        col(BreachRow.vehicle_id) == message.vehicle_id,
        col(BreachRow.message_id) == message.message_id,
        col(BreachRow.state) == "declined",
    )
    db.exec(declined.values(state="pending", reason=None, decided_at=None, heard_at=None, tries=0))
