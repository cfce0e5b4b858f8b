"""What follows from a batch of messages once it is committed: told to vehicles, worker, watchers.

Must never be acted on before the commit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cloud.intake.interpretation import Upward
from cloud.store.judged import Judged
from cloud.store.quarantined import Refused
from common.freshness import Freshness
from common.messages import Acknowledgement, Declined
from common.release import Fetch


@dataclass
class Verdict:
    """A vehicle's new word on a revision."""

    row: Judged
    ack: Acknowledgement


@dataclass
class Effects:
    """What follows from a batch once it is committed, by vehicle; and what it was, for watchers.

    `counts` by kind and outcome, `reasons` of refusals; `news` is what was not known before.
    """

    received: dict[str, list[str]] = field(default_factory=dict)
    declined: dict[str, list[Declined]] = field(default_factory=dict)
    republish: set[str] = field(default_factory=set)
    behind_on_keys: set[str] = field(default_factory=set)
    asked: dict[str, Freshness] = field(default_factory=dict)
    new_breaches: int = 0
    waiting: set[str] = field(default_factory=set)  # vehicles that sent a breach that is pending
    newcomers: int = 0
    quarantined: int = 0
    refused: list[Refused] = field(default_factory=list)
    fetches: list[Fetch] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    news: list[Upward] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def receipt_for(self, vehicle_id: str, message_id: str) -> None:
        """The message is in the database."""
        ids = self.received.setdefault(vehicle_id, [])
        if message_id not in ids:
            ids.append(message_id)

    def decline(self, vehicle_id: str, declined: Declined) -> None:
        """The breach brings no revision."""
        entries = self.declined.setdefault(vehicle_id, [])
        if declined not in entries:
            entries.append(declined)

    def add(self, other: Effects) -> None:
        """What follows from another transaction, too."""
        for vehicle_id, message_ids in other.received.items():
            for message_id in message_ids:
                self.receipt_for(vehicle_id, message_id)
        for vehicle_id, entries in other.declined.items():
            for declined in entries:
                self.decline(vehicle_id, declined)
        self.republish |= other.republish
        self.behind_on_keys |= other.behind_on_keys
        self.asked |= other.asked
        self.new_breaches += other.new_breaches
        self.waiting |= other.waiting
        self.newcomers += other.newcomers
        self.quarantined += other.quarantined
        self.fetches += other.fetches
        self.counts += other.counts
        self.reasons += other.reasons
        self.news += other.news
        self.verdicts += other.verdicts
