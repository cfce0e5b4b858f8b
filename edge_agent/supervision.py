"""Tell systemd how the agent is: ready, alive, what it does, stopping (sd_notify(3)).

One datagram per word to the Unix socket that `NOTIFY_SOCKET` names; without one, silence. Must
never raise nor block: a supervisor that does not listen is no reason not to measure.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

log = logging.getLogger(__name__)

PINGS_PER_DEADLINE = 3  # sd_watchdog_enabled(3) advises two; one may then be lost


class Supervisor:
    """What the main loop calls: a loop that hangs sends nothing, and systemd starts it again."""

    def __init__(
        self, environment: Mapping[str, str], pid: int, monotonic: Callable[[], float]
    ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._monotonic = monotonic
        self._ping_every_s = _deadline_s(environment, pid) / PINGS_PER_DEADLINE
        self._next_ping_s = monotonic()
        self._told = ""

    def ready(self) -> None:
        """The agent has its state, and takes samples from now on."""
        self._send("READY=1")

    def alive(self) -> None:
        """The loop has come round; a ping goes out when one is due."""
        now_s = self._monotonic()
        if self._ping_every_s > 0 and now_s >= self._next_ping_s:
            self._next_ping_s = now_s + self._ping_every_s
            self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows; sent when it is another text than before."""
        if text != self._told:
            self._told = text
            self._send("STATUS=" + text.replace("\n", " "))

    def stopping(self) -> None:
        """The agent is about to end, on purpose."""
        self._send("STOPPING=1")

    def _send(self, word: str) -> None:
        if self._address is None:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_systemd:
            to_systemd.sendto(word.encode(), socket.MSG_DONTWAIT, self._address)


def _address(name: str) -> str | None:
    """A path, or with `@` a name in Linux's abstract space; others (vsock) are not for us."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _deadline_s(environment: Mapping[str, str], pid: int) -> float:
    """How long systemd waits for a ping; 0 when it waits for none of this process."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    try:
        return max(0.0, int(environment.get("WATCHDOG_USEC", "0")) / 1e6)
    except ValueError:
        log.warning("watchdog_unreadable usec=%r: no pings", environment["WATCHDOG_USEC"])
        return 0.0
