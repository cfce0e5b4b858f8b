"""Where one trip ends and the next begins.

Pure. By the source's own trip id where it has one, else by whether the car is on (its ignition, or
its current and speed, each with hysteresis), else by a gap in time, either way: a clock that was
set back would otherwise refuse samples until it has caught up. Intervals are monotonic where the
sample says when it came. Must never merge samples of two trip ids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from edge_agent.config import Trips
from edge_agent.samples import Sample


@dataclass(frozen=True, slots=True)
class Switch:
    """Whether the car is on, and since when its signals have said the contrary without a break."""

    is_on: bool
    contrary_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class TripStep:
    """What a sample means: whether it ends the running trip, and to which trip it belongs."""

    ends_running_trip: bool
    trip_id: str | None


def turned(switch: Switch | None, sample: Sample, rule: Trips) -> Switch | None:
    """The switch after this sample; None as long as no sample has said anything of it.

    It turns when the contrary has been said for `on_after_s` or `off_after_s` without a break; a
    sample that says nothing changes nothing.
    """
    before = switch or Switch(is_on=False)
    says_on = sample.ignition if rule.by == "ignition" else _in_motion(sample, rule, before)
    if says_on is None:
        return switch
    if says_on == before.is_on:
        return Switch(before.is_on)
    now_s = _moment(sample)
    since_s = before.contrary_since_s
    if since_s is None or now_s < since_s:  # a recorded clock may have been set back
        since_s = now_s
    if now_s - since_s >= (rule.on_after_s if says_on else rule.off_after_s):
        return Switch(says_on)
    return Switch(before.is_on, since_s)


def seen(sample: Sample, switch: Switch | None) -> Sample:
    """The sample with what the switch says in place of the raw signal."""
    return sample if switch is None else replace(sample, ignition=switch.is_on)


def step(
    running: str | None, previous: Sample | None, sample: Sample, gap_s: float, mark: str = ""
) -> TripStep:
    """Judge one sample against the running trip (`running` is its id) and the sample before.

    `mark` is for the id of a trip that begins while nobody knows the time.
    """
    if sample.trip_id is not None:
        return TripStep(running not in {None, sample.trip_id}, sample.trip_id)
    if sample.ignition is False:
        return TripStep(running is not None, None)
    if running is None or previous is None:
        return TripStep(ends_running_trip=False, trip_id=trip_id_at(sample, mark))
    if _between_s(previous, sample) > gap_s:
        return TripStep(ends_running_trip=True, trip_id=trip_id_at(sample, mark))
    return TripStep(ends_running_trip=False, trip_id=running)


def trip_id_at(first: Sample, mark: str = "") -> str:
    """The id of a trip that has none from its source: its start to the second in UTC, its odometer.

    A clock that begins again at every key-on gives the same start twice, the odometer does not. One
    that begins again at every boot may do so where the car has not moved: then `mark` tells them
    apart.
    """
    started_at = datetime.fromtimestamp(first.time_s, UTC)
    made = f"{started_at:%Y%m%dT%H%M%SZ}-{round(1000 * first.odometer)}"
    return f"{made}-{mark}" if mark else made


def _in_motion(sample: Sample, rule: Trips, switch: Switch) -> bool | None:
    """What discharge current and speed say; between the two thresholds the car is what it was.

    A current that flows in (negative) is a charge or a recuperation, and no sign of driving.
    """
    current_a = sample.signals.get(rule.current)
    speed_m_s = sample.signals.get(rule.speed)
    if current_a is None or speed_m_s is None or math.isnan(current_a + speed_m_s):
        return None
    if current_a >= rule.start_current_a or speed_m_s >= rule.start_speed_m_s:
        return True
    if current_a <= rule.stop_current_a and speed_m_s <= rule.stop_speed_m_s:
        return False
    return switch.is_on


def _moment(sample: Sample) -> float:
    return sample.time_s if sample.monotonic_s is None else sample.monotonic_s


def _between_s(previous: Sample, sample: Sample) -> float:
    if previous.monotonic_s is None or sample.monotonic_s is None:
        return abs(sample.time_s - previous.time_s)
    return sample.monotonic_s - previous.monotonic_s
