"""Answer a vehicle's request for chunks of an announced bundle.

A token bucket holds the service below AWS IoT Core's 512 kB/s a connection. What exceeds it is not
sent: the vehicle asks again, ever less often. Must never hold a queue of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from cloud.errors import StoreUnavailableError
from cloud.mqtt.protocol import Publisher
from cloud.store import releases
from cloud.store.database import Store
from common.messages import encode
from common.release import CHUNK_BYTES, Chunk, Fetch
from common.topics import topic

log = logging.getLogger(__name__)

BYTES_PER_S: Final = 384 * 1024
BURST_BYTES: Final = 8 * 128 * 1024


class ChunkServer:
    """From the thread that takes messages in."""

    def __init__(
        self, store: Store, publisher: Publisher, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._publisher, self._monotonic = store, publisher, monotonic
        self._tokens = float(BURST_BYTES)
        self._at = monotonic()

    def answer(self, fetch: Fetch) -> int:
        """Publish what is asked for, as far as the pace allows; how many chunks that were."""
        sent = 0
        try:
            with self._store.read() as db:
                for index in fetch.chunks:
                    data = releases.piece(db, fetch, index, CHUNK_BYTES)
                    if not data or not self._send(fetch, index, data):
                        break
                    sent += 1
        except StoreUnavailableError as error:
            log.error("chunks_not_read error=%r", str(error))  # noqa: TRY400  # it is asked again
        return sent

    def _send(self, fetch: Fetch, index: int, data: bytes) -> bool:
        chunk = Chunk(
            vehicle_id=fetch.vehicle_id,
            release=fetch.release,
            file=fetch.file,
            index=index,
            data=data,
        )
        payload = encode(chunk)
        if not self._is_affordable(len(payload)):
            return False
        return self._publisher.publish(topic(fetch.vehicle_id, "chunk"), payload, lambda: None)

    def _is_affordable(self, size: int) -> bool:
        now = self._monotonic()
        self._tokens = min(self._tokens + (now - self._at) * BYTES_PER_S, BURST_BYTES)
        self._at = now
        if self._tokens < size:
            return False
        self._tokens -= size
        return True
