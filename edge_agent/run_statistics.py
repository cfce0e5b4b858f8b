"""What one run of an agent did, for whoever hosts it. Nothing depends on it."""

from __future__ import annotations

from dataclasses import dataclass, field

KEPT_LATENCIES = 10_000


@dataclass
class Statistics:
    """Latency: breach on disk to revision applied.

    `failures_in_a_row`: breaches since the newest revision that brought none that was applied.
    """

    items: int = 0
    trips: int = 0
    passed_over: int = 0
    breaches: int = 0
    applied: int = 0
    refused: int = 0
    failures_in_a_row: int = 0
    fallen_back: int = 0
    apply_latencies_s: list[float] = field(default_factory=list)

    def add_latency(self, seconds: float) -> None:
        """Keep the newest KEPT_LATENCIES."""
        self.apply_latencies_s.append(seconds)
        del self.apply_latencies_s[:-KEPT_LATENCIES]
