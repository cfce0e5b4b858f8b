"""What the log says of the broker: that it answers, that it went, and once why it stays away.

Must never repeat itself while the broker is away: a link tries every few seconds, for days.
"""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class Outages:
    """One link's. `end`, `begin` and `explain` are called from the client's thread."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._is_explained = False

    def end(self) -> None:
        """The broker answers."""
        self._is_explained = False
        log.info("broker_connected host=%s port=%d", self._host, self._port)

    def begin(self, why: object) -> None:
        """It answered, and is gone."""
        log.warning("broker_disconnected why=%r", str(why))

    def explain(self, why: object) -> None:
        """It cannot be reached, or refuses; said once each outage."""
        if not self._is_explained:
            log.error(
                "broker_unreachable host=%s port=%d why=%r: trying again until it answers",
                self._host, self._port, str(why),
            )  # fmt: skip
        self._is_explained = True
