"""A thread that sleeps until it is woken, does what is due, and lives through what fails.

Must never decide what is due.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from cloud.errors import OvertakenError, StoreUnavailableError

log = logging.getLogger(__name__)

RETRY_S: Final = 0.5
LOOK_S: Final = 10.0
"""How often to look without being woken: another process may have ordered something."""
GATHERING_S: Final = 0.1
"""What the broker took is written down together: nothing waits for it."""


class Turning:
    """Run `run()` on a thread of its own; each `turn` does what is due then."""

    def __init__(self, turn: Callable[[], None], gathering_s: float = 0.0) -> None:
        """Woken, it waits for `gathering_s` for what else comes."""
        self._turn, self._gathering_s = turn, gathering_s
        self.awake = threading.Event()
        self.awake.set()
        self.trouble: str | None = None
        """What the last turn failed of; None when it did its work."""

    def wake(self) -> None:
        """There is something to do. Any thread."""
        self.awake.set()

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set and `wake()` called."""
        while True:
            if self.awake.wait(LOOK_S):
                stop.wait(self._gathering_s)
            self.awake.clear()
            if stop.is_set():
                return
            try:
                self._turn()
            except OvertakenError:
                self.wake()  # what has changed meanwhile is decided anew
                continue
            except StoreUnavailableError as error:
                log.error("worker_waits error=%r", str(error))  # noqa: TRY400  # it names the cause
                self.trouble = str(error)
            except Exception as error:
                log.exception("worker_failed")
                self.trouble = f"its last turn failed ({error!r})"
            else:
                self.trouble = None
                continue
            stop.wait(RETRY_S)
            self.wake()
