"""Say how the vehicle is: a retained status, when something changed and now and then.

Must never fill a line that takes nothing: the next status says it all.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from common.messages import Status, encode
from edge_agent.mqtt.link import MqttLink
from edge_agent.mqtt.offers import STATUSES
from edge_agent.parameters.cloud_word import CloudWord


class StatusLine:
    """Of one vehicle; `made` gives the status of now. Times are monotonic, seconds."""

    def __init__(
        self,
        link: MqttLink,
        word: CloudWord,
        made: Callable[[], Status],
        monotonic: Callable[[], float],
        interval_s: float,
    ) -> None:
        self._link, self._word, self._made = link, word, made
        self._monotonic, self._interval_s = monotonic, interval_s
        self._next_s = 0.0
        self._without_puback: set[int] = set()

    def reconnected(self) -> None:
        """What the old connection did not take is gone with it."""
        self._without_puback.clear()
        self._word.ask_again()

    def accepted(self, mid: int) -> None:
        """The broker's PUBACK, for a status or for something else."""
        self._without_puback.discard(mid)

    def publish(self) -> None:
        """Now, as far as the line takes one more."""
        self._next_s = self._monotonic()
        if len(self._without_puback) >= STATUSES:
            return
        question = self._word.question(self._monotonic())
        mid = self._send(msgspec.structs.replace(self._made(), question=question))
        if mid is None:
            self._word.ask_again()
        else:
            self._without_puback.add(mid)
            self._next_s += self._interval_s

    def publish_when_due(self) -> None:
        """When the last one is old."""
        if self._monotonic() >= self._next_s:
            self.publish()

    def say_goodbye(self) -> None:
        """Leave the word *offline* behind: after a clean end the broker sends no last will."""
        self._send(msgspec.structs.replace(self._made(), online=False))

    def _send(self, status: Status) -> int | None:
        return self._link.publish("status", encode(status), retain=True)
