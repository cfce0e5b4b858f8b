"""What a car does while its disk is recorded: one life of the agent, from its start to its end.

Trips with and without breaches, receipts that come and stay away, revisions that fit and do not,
garbage, a full outbox, checkpoints, an end in mid-trip or by kill. At each point it writes down
what was promised. Must never promise before the agent has.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.edge.agent_under_test import VEHICLE, Rig, running
from bench.edge.made_up_car import (
    SAMPLES,
    Car,
    breaches,
    breaches_before,
    car,
    started_at,
    theta,
)
from common.bundle import load_bundle
from common.messages import Declined, Receipt, encode
from edge_agent.config import load_config
from edge_agent.mqtt.link import Disconnected

HALF: Final = SAMPLES // 2
BAD_THETA: Final = [0.6, 0.0]


def revision_after(number: int) -> int:
    """Each breach has its revision, numbered from 1."""
    return breaches_before(number + 1)


def is_good(number: int) -> bool:
    """Every second revision would worsen the error on the kept trace, and is refused."""
    return number % 2 == 1


def revision(of: Car, number: int) -> bytes:
    """The signed revision of that number; its breach is the trip that it names."""
    chosen = theta(number) if is_good(number) else BAD_THETA
    return of.revision(number, 3 * number - 2, theta=chosen)


class Marks:
    """Lines of JSON that stand in the record at the point at which they became true."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, **content: Any) -> None:
        """One write."""
        os.write(self._file, json.dumps(content).encode() + b"\n")


class Life:
    """The car's trips `first` … `last` - 1, and what the cloud says meanwhile."""

    def __init__(self, rig: Rig, of: Car, mark: Marks) -> None:
        self.rig, self.car, self.mark = rig, of, mark
        self.unanswered: list[str] = []
        self.is_connected = False
        self.told = 0

    def published(self, kind: str, payload: bytes) -> None:
        """The agent offers something."""
        if kind == "status":
            return
        message_id = msgspec.json.decode(payload)["message_id"]
        self.mark(offered=message_id, payload=payload.decode())
        if message_id not in self.unanswered:
            self.unanswered.append(message_id)

    def trip(self, number: int, first_sample: int = 0) -> None:
        """One trip, its end, and what follows from it."""
        self.link_comes_and_goes(number)
        self.mark(driven=number)
        before = self.rig.agent.statistics.trips
        self.rig.drive(self.car, number, first_sample)
        self.rig.agent.driving.end_trip()
        if self.rig.agent.statistics.trips > before:
            self.mark(committed=number)
        if self.is_connected:
            self.cloud_speaks(number)

    def link_comes_and_goes(self, number: int) -> None:
        """Five trips without a network, then ten with it."""
        wanted = number % 15 >= 5  # noqa: PLR2004
        if wanted and not self.is_connected:
            self.rig.connect()
        elif self.is_connected and not wanted:
            self.rig.tell(Disconnected("a tunnel"))
        self.is_connected = wanted

    def cloud_speaks(self, number: int) -> None:
        """Receipts, but not for all; the newest revision, twice now and then; garbage."""
        if number % 4 != 0:
            self.receipts(number)
        if breaches(number) or number % 6 == 0:
            self.tell_revision(revision_after(number))
        if number % 7 == 3:  # noqa: PLR2004
            self.rig.receive("parameters", b'{"garbage": %d}' % number)

    def receipts(self, number: int) -> None:
        """For all that was offered; one of them says that a breach brings no revision."""
        while self.unanswered:
            ids, self.unanswered = self.unanswered, []
            declined = (
                [Declined(message_id=ids[0], reason="it shows nothing new")]
                if number % 5 == 0
                else []
            )
            receipt = Receipt(vehicle_id=VEHICLE, message_ids=ids, declined=declined)
            self.mark(receipt=ids)
            self.rig.receive("receipt", encode(receipt))

    def tell_revision(self, number: int) -> None:
        """And what became of it."""
        if number == 0:
            return
        statistics = self.rig.agent.statistics
        applied, refused = statistics.applied, statistics.refused
        self.mark(told=number)
        self.rig.receive("parameters", revision(self.car, number))
        if statistics.applied > applied:
            self.mark(applied=number)
        elif statistics.refused > refused:
            self.mark(refused=number)


def main(arguments: Sequence[str] = sys.argv[1:]) -> None:
    """CONFIG MARKS FIRST LAST BEGINS ENDS; of them: `whole` or `half` a trip, `clean` or `kill`."""
    config = load_config(Path(arguments[0]))
    first, last, begins, ends = int(arguments[2]), int(arguments[3]), arguments[4], arguments[5]
    of = car(VEHICLE, load_bundle(config.path(config.bundle)))
    mark = Marks(Path(arguments[1]))
    with running(config) as rig:
        life = Life(rig, of, mark)
        rig.link.on_publish = life.published
        rig.agent.driving.keep_trips()
        rig.now_s[0] = started_at(first)
        for number in range(first, last):
            life.trip(number, HALF if number == first and begins == "half" else 0)
        mark(driven=last)
        rig.drive(of, last, 0, HALF)
        if ends == "kill":
            os._exit(9)
        rig.agent.driving.leave_trip()


if __name__ == "__main__":
    main()
