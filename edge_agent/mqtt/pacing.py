"""How fast a backlog may go out: a token bucket of messages and one of bytes.

Pure: the clock is passed in. Must never let any second of one connection reach AWS IoT Core's 100
publishes and 512 KB, with room for what is live and not paced (status): burst + rate stay below.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.messages import MAX_PAYLOAD_BYTES


@dataclass(frozen=True, slots=True)
class Rate:
    """So much a second, and at most `burst` at once."""

    per_s: float
    burst: float


MESSAGES = Rate(per_s=50.0, burst=40.0)
BYTES = Rate(per_s=256e3, burst=192e3)
assert BYTES.burst > MAX_PAYLOAD_BYTES  # noqa: S101 - else the largest message would never go


class TokenBucket:
    """Full at the beginning. Times are any monotonic clock's seconds."""

    def __init__(self, rate: Rate) -> None:
        self._rate, self._tokens, self._at = rate, rate.burst, float("-inf")

    def wait_s(self, amount: float, now: float) -> float:
        """How long until `amount` (at most the burst) may go; 0 when it may."""
        self._fill(now)
        return max(0.0, (amount - self._tokens) / self._rate.per_s)

    def take(self, amount: float, now: float) -> None:
        """It goes."""
        self._fill(now)
        self._tokens -= amount

    def _fill(self, now: float) -> None:
        elapsed_s = max(0.0, now - self._at)
        self._tokens = min(self._rate.burst, self._tokens + elapsed_s * self._rate.per_s)
        self._at = max(self._at, now)


class Pace:
    """Both buckets of one connection's backlog."""

    def __init__(self) -> None:
        self._messages, self._bytes = TokenBucket(MESSAGES), TokenBucket(BYTES)

    def wait_s(self, size: int, now: float) -> float:
        """How long until a message of `size` bytes may go."""
        return max(self._messages.wait_s(1, now), self._bytes.wait_s(size, now))

    def take(self, size: int, now: float) -> None:
        """It goes."""
        self._messages.take(1, now)
        self._bytes.take(size, now)
