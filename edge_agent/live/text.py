"""The live view in words: lines for a terminal, one line for a log.

Pure. Must never leave a number without its unit, or an estimate without its state.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final

from common.sampling import Interval
from edge_agent.live.view import LiveView, RunningTrip

BARS: Final = "▁▂▃▄▅▆▇█"
PLAIN_BARS: Final = "_.-=+*#@"


def screen(view: LiveView, bars: str = BARS) -> list[str]:
    """The view in lines of a terminal."""
    link = "connected" if view.is_connected else "offline, keeping what it cannot send"
    when = datetime.fromtimestamp(view.at).astimezone()
    return [
        f"{view.vehicle_id}   {link}   {when:%H:%M:%S}",
        "",
        *(_of_trip(view.trip, view) if view.trip else ["trip      none is running"]),
        f"measured  {sparkline(view.recent.measured_v, bars)}",
        f"error     {sparkline(_errors(view), bars)}  the last minutes",
        "",
        *_of_battery(view),
        "",
        f"revision  {_revision(view)}, bundle {view.bundle[:16]}",
        f"outbox    {view.outbox_messages} messages to send",
        f"counters  {_counted(view.counters)}",
        f"agent     {view.agent_version}",
    ]


def line(view: LiveView) -> str:
    """The view in one line."""
    trip, battery = view.trip, view.battery
    words = [f"{datetime.fromtimestamp(view.at).astimezone():%H:%M:%S}"]
    if trip is not None:
        words.append(
            f"{trip.measured_v:.3f} V, predicted {trip.predicted_v:.3f} ± {trip.band95_v:.3f} V, "
            f"error {1000 * trip.error_v:.1f} mV"
        )
    else:
        words.append("no trip")
    if battery is not None:
        words.append(f"health {_percent(battery.health)}, left {_amount(battery.remaining)}")
        words.append(battery.state)
    words.append(f"revision {view.revision}, {view.outbox_messages} to send")
    return "  ".join(words)


def sparkline(values: Sequence[float], bars: str = BARS, width: int = 60) -> str:
    """Up to `width` characters, each as high as the mean of its share of the values."""
    if not values:
        return "-"
    width = min(width, len(values))
    ends = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    least, span = min(means), max(means) - min(means)
    steps = [int((len(bars) - 1) * (mean - least) / span + 0.5) if span else 0 for mean in means]
    return "".join(bars[step] for step in steps)


def _of_trip(trip: RunningTrip, view: LiveView) -> list[str]:
    since = datetime.fromtimestamp(trip.started_at).astimezone()
    beside = "inside the band" if trip.is_inside else "OUTSIDE the band"
    against = "above" if trip.error_v > view.threshold_v else "below"
    taken = f"{trip.samples} samples, {trip.refused_samples} refused"
    band = f"{trip.predicted_v:.3f} ± {trip.band95_v:.3f} V predicted"
    limit = f"{against} the {1000 * view.threshold_v:g} mV that are reported"
    return [
        f"trip      {trip.trip_id}, since {since:%H:%M}, {taken}",
        f"voltage   {trip.measured_v:.3f} V measured, {band}: {beside}",
        f"error     {1000 * trip.error_v:.1f} mV, {limit}; {trip.coverage95:.0%} in the band",
    ]


def _of_battery(view: LiveView) -> list[str]:
    battery = view.battery
    if battery is None:
        return ["battery   not known"]
    why = f": {battery.reason}" if battery.reason else ""
    return [
        f"health    {_percent(battery.health)}",
        f"left      {_amount(battery.remaining)}",
        f"estimate  {battery.state}{why}",
    ]


def _percent(found: Interval | None) -> str:
    if found is None:
        return "-"
    return f"{_number(found.value, 100, '%')} ({_ends(found, 100, '%')})"


def _amount(found: Interval | None) -> str:
    if found is None:
        return "-"
    return f"{_number(found.value, 1, ' ' + found.unit)} ({_ends(found, 1, ' ' + found.unit)})"


def _ends(found: Interval, scale: float, unit: str) -> str:
    low = "?" if found.low is None else f"{scale * found.low:.0f}"
    return f"95 %: {low} to {_number(found.high, scale, unit)}"


def _number(value: float | None, scale: float, unit: str) -> str:
    return "beyond what is known" if value is None else f"{scale * value:.0f}{unit}"


def _errors(view: LiveView) -> list[float]:
    recent = view.recent
    pairs = zip(recent.predicted_v, recent.measured_v, strict=True)
    return [abs(predicted - measured) for predicted, measured in pairs]


def _revision(view: LiveView) -> str:
    trial = ", on trial" if view.is_on_trial else ""
    own = f", and {view.provisional} steps of the vehicle's own" if view.provisional else ""
    return f"{view.revision} in force{trial}{own}"


def _counted(counters: dict[str, int]) -> str:
    told = [f"{name} {number}" for name, number in sorted(counters.items()) if number]
    return ", ".join(told) or "nothing was refused or dropped"
