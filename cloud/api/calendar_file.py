"""Open tasks as an iCalendar file (RFC 5545). Must never give the same task another UID."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cloud.api.views import some_utc
from cloud.store.maintenance_tables import MaintenanceTask

if TYPE_CHECKING:
    from icalendar import Event

MEDIA: Final = "text/calendar"


def calendar(tasks: Iterable[MaintenanceTask]) -> bytes:
    """An all-day event for each task: tentative as long as nobody has scheduled it."""
    from icalendar import Calendar  # noqa: PLC0415  # only for those who ask

    found = Calendar()
    found.add("prodid", "-//living twin//twin-cloud//EN")
    found.add("version", "2.0")
    found.add("x-wr-calname", "Fleet maintenance")
    for task in tasks:
        found.add_component(_event(task))
    return bytes(found.to_ical())


def _event(task: MaintenanceTask) -> Event:
    from icalendar import Event  # noqa: PLC0415

    day = some_utc(task.due_at).date()
    made = Event()
    made.add("uid", f"task-{task.id}@twin-cloud")
    made.add("dtstamp", some_utc(task.changed_at))
    made.add("sequence", task.changes)
    made.add("dtstart", day)
    made.add("dtend", day + timedelta(days=1))
    made.add("summary", f"{task.vehicle_id}: {task.kind}")
    made.add("status", "CONFIRMED" if task.state == "scheduled" else "TENTATIVE")
    made.add("transp", "TRANSPARENT")
    made.add("description", _described(task))
    return made


def _described(task: MaintenanceTask) -> str:
    words = [task.reason]
    if task.due_odometer is not None:
        words.append(f"at odometer {task.due_odometer:.0f}")
    if task.due_at_low is not None:
        low = some_utc(task.due_at_low).date()
        high = some_utc(task.due_at_high).date() if task.due_at_high is not None else "later"
        words.append(f"10-90 %: {low} to {high}")
    return "; ".join(words)
