"""When a forecast proposes, re-dates, withdraws a task, or leaves it."""

from __future__ import annotations

import pytest

from cloud.maintenance.proposing import Crossing, Decision, Span, decide, has_moved

NEVER = Crossing(Span(None), Span(None), 1.0)
OPEN_END = Crossing(Span(100.0, 80.0), Span(1000.0, 800.0))


def at(median: float, never: float = 0.0) -> Crossing:
    """Odometer and date alike; the interval is 40 wide."""
    return Crossing(
        Span(median, median - 20, median + 20), Span(median * 10, median * 10 - 200, 1e6), never
    )


@pytest.mark.parametrize(
    ("new", "proposed", "settled", "decision"),
    [
        (at(100), None, None, "propose"),
        (NEVER, None, None, "leave"),
        (at(105), at(100), None, "leave"),  # within the scatter
        (at(115), at(100), None, "redate"),
        (at(85), at(100), None, "redate"),
        (NEVER, at(100), None, "withdraw"),
        (Crossing(Span(None), Span(None), 0.55), at(100), None, "leave"),  # hardly below even
        (at(100), None, at(100), "leave"),  # settled by a person
        (at(200), None, at(100), "leave"),
        (at(95), None, at(100), "leave"),
        (at(80), None, at(100), "propose"),  # clearly earlier than they knew
        (at(80), None, Crossing(Span(None), Span(1000.0)), "leave"),
    ],
)
def test_what_a_forecast_means_for_the_task(
    new: Crossing, proposed: Crossing | None, settled: Crossing | None, decision: Decision
) -> None:
    assert decide(new, proposed, settled) == decision


def test_an_open_interval_counts_twice_its_lower_half() -> None:
    assert not has_moved(OPEN_END.odometer, Span(109.0))
    assert has_moved(OPEN_END.odometer, Span(111.0))
