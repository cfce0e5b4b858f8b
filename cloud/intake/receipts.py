"""When a committed batch may be acknowledged to the broker: after its receipts are with the broker.

So a crash between commit and receipt leaves the message with the broker, which sends it again. Must
never acknowledge a batch before an earlier one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloud.intake.interpretation import Delivery


@dataclass(eq=False)
class _Batch:
    deliveries: Sequence[Delivery]
    open_receipts: int


class Acknowledger:
    """Deliveries wait here until every receipt of their batch is confirmed. Thread-safe."""

    def __init__(self, acknowledge: Callable[[Delivery], None]) -> None:
        self._acknowledge = acknowledge
        self._lock = threading.Lock()
        self._batches: deque[_Batch] = deque()

    def add(self, deliveries: Sequence[Delivery], receipts: int) -> Callable[[bool], None]:
        """Register a batch; the result is called once per receipt: True when the broker has it.

        False (it could not be handed over: no connection) gives the batch up: the broker still
        has its messages, and delivers them again.
        """
        batch = _Batch(deliveries, receipts)
        with self._lock:
            self._batches.append(batch)
            self._release()
        return lambda has_it: self._settle(batch, has_it=has_it)

    def _settle(self, batch: _Batch, *, has_it: bool) -> None:
        with self._lock:
            batch.open_receipts -= 1
            if not has_it:
                batch.deliveries, batch.open_receipts = (), 0
            self._release()

    def _release(self) -> None:
        while self._batches and self._batches[0].open_receipts <= 0:
            for delivery in self._batches.popleft().deliveries:
                self._acknowledge(delivery)
