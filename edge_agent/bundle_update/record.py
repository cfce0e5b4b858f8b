"""Which bundle runs, which one ran before, which release is under way: one value and its changes.

Pure. Must never lower `floor`: no release at or below it is ever believed again.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec.structs import replace

from common.messages import Count, message_id
from common.release import Announcement, BundleAck, ReleaseReason, ReleaseState

FORMAT: Final = 1
FACTORY: Final = ""
UNTOLD: Final = 16
STARTS: Final = 3
"""How often a bundle on trial may be started without one trip or clean end before it goes."""

# A SHA-256, or FACTORY: these become the names of folders.
SlotName = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]


class Slot(msgspec.Struct, frozen=True):
    """A bundle by its SHA-256 (FACTORY: the configured one), and the release that brought it."""

    bundle: SlotName = FACTORY
    release: Count = 0
    announcement: SlotName = ""


class Pending(msgspec.Struct, frozen=True):
    """The release under way; `is_staged`: complete, self-tested, waits for the end of the trip."""

    release: Count
    bundle: SlotName
    announcement: SlotName
    is_staged: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """`factory` is the configured bundle's SHA-256 when `current` was swapped in.

    `judged` is the hash of the last announcement that was judged; `trial_starts` counts starts
    since the swap, None: there is no trial. `untold` are acknowledgements not yet in the outbox.
    """

    format: int = FORMAT
    vehicle_id: str
    factory: SlotName = ""
    floor: Count = 0
    judged: SlotName = ""
    pending: Pending | None = None
    current: Slot = Slot()
    previous: Slot | None = None
    trial_starts: Count | None = None
    untold: list[BundleAck] = []

    @property
    def in_use(self) -> set[str]:
        """The bundles that must stay on the disk."""
        slots = [self.current.bundle, self.previous.bundle if self.previous else FACTORY]
        return {*slots, self.pending.bundle if self.pending else FACTORY} - {FACTORY}


def judged(record: Record, announcement: Announcement, hash_: str) -> Record:
    """A release was believed: whatever was under way before gives way to it."""
    pending = Pending(announcement.release, announcement.bundle, hash_)
    floor = max(record.floor, announcement.release)
    return replace(record, floor=floor, judged=hash_, pending=pending)


def accepted(record: Record, announcement: Announcement, hash_: str, now: float) -> Record:
    """It will be fetched."""
    return _tell(judged(record, announcement, hash_), "fetching", now)


def refused(record: Record, reason: ReleaseReason, detail: str, now: float) -> Record:
    """The release under way will not be run."""
    return replace(_tell(record, "refused", now, reason, detail), pending=None)


def staged(record: Record, now: float) -> Record:
    """All of it is on the disk and passed the self-test."""
    assert record.pending is not None  # noqa: S101 - only what is under way is staged
    pending = replace(record.pending, is_staged=True)
    return _tell(replace(record, pending=pending), "staged", now)


def swapped(record: Record, factory: str, now: float) -> Record:
    """What was staged runs from the next start on, on trial.

    What ran before stays; unless it was on trial itself: then the one before it does.
    """
    pending = record.pending
    assert pending is not None  # noqa: S101 - only what is staged is swapped in
    told = _tell(record, "trial", now)
    good = record.current if record.trial_starts is None else record.previous
    current = Slot(pending.bundle, pending.release, pending.announcement)
    return replace(
        told, current=current, previous=good, pending=None, trial_starts=0, factory=factory
    )


def started(record: Record) -> Record:
    """The agent is about to load the current bundle."""
    if record.trial_starts is None:
        return record
    return replace(record, trial_starts=record.trial_starts + 1)


def is_crash_loop(record: Record) -> bool:
    """Whether the current bundle, on trial, was started too often."""
    return record.trial_starts is not None and record.trial_starts > STARTS


def survived(record: Record) -> Record:
    """The agent came through a trip, or ended in good order: no crash so far."""
    return record if record.trial_starts is None else replace(record, trial_starts=0)


def passed(record: Record, now: float) -> Record:
    """A trip was reported with the bundle on trial: it stays."""
    return replace(_tell_current(record, "installed", now), trial_starts=None)


def rolled_back(record: Record, reason: ReleaseReason, detail: str, now: float) -> Record:
    """The current bundle cannot be run: the previous one, at last the factory's, takes over."""
    told = _tell_current(record, "rolled_back", now, reason, detail)
    return replace(told, current=record.previous or Slot(), previous=None, trial_starts=None)


def replaced_by_hand(record: Record) -> Record:
    """Somebody put another bundle into the configuration: that is the one to run."""
    return replace(record, current=Slot(), previous=None, trial_starts=None)


def acknowledgement(
    vehicle_id: str,
    slot: Slot | Pending,
    state: ReleaseState,
    now: float,
    reason: ReleaseReason = "",
    detail: str = "",
) -> BundleAck:
    """The vehicle's word on a release; the same word on the same release is one message."""
    kind = f"bundle-{slot.release}-{slot.announcement}-{state}-{reason}"
    return BundleAck(
        message_id=message_id(vehicle_id, "", kind),
        vehicle_id=vehicle_id,
        release=slot.release,
        bundle=slot.bundle,
        announcement_hash=slot.announcement,
        state=state,
        reason=reason,
        detail=detail[:512],
        decided_at=round(now, 3),
    )


def _tell(
    record: Record, state: ReleaseState, now: float, reason: ReleaseReason = "", detail: str = ""
) -> Record:
    """Of the release under way."""
    return _add(record, record.pending or Slot(), state, now, reason, detail)


def _tell_current(
    record: Record, state: ReleaseState, now: float, reason: ReleaseReason = "", detail: str = ""
) -> Record:
    return _add(record, record.current, state, now, reason, detail)


def _add(
    record: Record,
    slot: Slot | Pending,
    state: ReleaseState,
    now: float,
    reason: ReleaseReason,
    detail: str,
) -> Record:
    """Of the configured bundle, which no release brought, there is nothing to tell."""
    if slot.bundle == FACTORY:
        return record
    told = acknowledgement(record.vehicle_id, slot, state, now, reason, detail)
    return replace(record, untold=[*record.untold, told][-UNTOLD:])
