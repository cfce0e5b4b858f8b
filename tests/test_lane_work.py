"""The thread that works lanes outlives whatever fails in a round."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from cloud.errors import StoreUnavailableError
from cloud.jobs.lane_work import LaneWork


@pytest.mark.parametrize("step", ["starts", "round", "learn"])
def test_a_step_that_fails_is_told_to_its_lane_and_the_next_is_worked(step: str) -> None:
    failing = [True]

    def fails_once(name: str, found: Any) -> Any:
        def do(*_: object) -> Any:
            if name == step and failing:
                failing.pop()
                raise StoreUnavailableError(OSError("the server has gone"))
            return found

        return do

    steps: tuple[tuple[str, Any], ...] = (("starts", []), ("round", []), ("learn", False))
    calibrations: Any = SimpleNamespace(**{name: fails_once(name, found) for name, found in steps})
    courier: Any = SimpleNamespace(announce=lambda *_: None, announce_started=lambda *_: None)
    work = LaneWork(lambda: calibrations, courier, lambda: 1.0)
    thread = threading.Thread(target=work.run, daemon=True)
    thread.start()
    with pytest.raises(StoreUnavailableError):
        work.hold(3, orders=True).result(10)
    assert work.hold(3, orders=True).result(10) is False
    work.stop()
    thread.join(10)
    assert not thread.is_alive()
