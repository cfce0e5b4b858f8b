"""What a fleet run left at the cloud and in the cars, and what is wrong with it.

Pure but for reading. The truth is the data that was fed, never what an agent said. Must never
forgive a difference.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.edge.made_up_car import (
    SAMPLES,
    breaches,
    breaches_before,
    number_of,
    odometer_at,
    started_at,
    theta,
    trip_id,
)

Content = dict[str, Any]
SUMMARY: Final = (
    *("trip_id", "samples", "refused_samples", "started_at", "duration_s"),
    *("odometer_start", "odometer_end", "breach", "partial"),
)
"""What of a trip's summary does not depend on when an answer arrives."""


@dataclass
class Ending:
    """Of one car: summaries and breaches in the order in which they came first, and its status."""

    trips: list[Content] = field(default_factory=list)
    breaches: list[Content] = field(default_factory=list)
    contents: Counter[str] = field(default_factory=Counter)
    status: Mapping[str, Any] = field(default_factory=dict)
    newest: int = 0  # the revision that the car should run by what the cloud knows
    newest_theta: list[float] | None = None  # where it is not a made-up one

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to be sent, and the newest revision is in force."""
        said = self.status
        is_heard = said["outbox_messages"] == said["breaches_awaiting_an_answer"] == 0
        return bool(is_heard and said["revision"] == self.newest)


def read_ending(database: Path, vehicle_id: str, status: Mapping[str, Any]) -> Ending:
    """Everything that the stand-in cloud keeps of a car."""
    ending = Ending(status=status)
    query = "SELECT kind, message_id, payload FROM message WHERE vehicle_id = ? ORDER BY seq"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10.0)) as db:
        rows = db.execute(query, (vehicle_id,)).fetchall()
    for kind, message_id, payload in rows:
        ending.contents[message_id] += 1
        if ending.contents[message_id] == 1 and kind in {"trip", "breach"}:
            content = msgspec.json.decode(payload)
            (ending.trips if kind == "trip" else ending.breaches).append(content)
    ending.newest = len(ending.breaches)
    return ending


def problems_of_table(found: Ending, trips: int) -> dict[str, list[str]]:
    """A car that drove the trips 0 … trips - 1 from a table: each is there, whole, and once."""
    wanted = range(trips)
    due = [number for number in wanted if breaches(number)]
    return {
        "lost": _missing(found.trips, wanted, "trip") + _missing(found.breaches, due, "breach"),
        "twice": _twice(found),
        "wrong": [
            *_never_driven(found, trips),
            *(
                f"trip {t['trip_id']} is not what was driven: {t}"
                for t in found.trips
                if not whole(t)
            ),
            *_out_of_order(found),
            *_wrong_status(found, breaches_before(trips)),
        ],
    }


def problems_of_stream(found: Ending, trips: int, told: set[int]) -> dict[str, list[str]]:
    """A car that drove on while its agent was dead: whatever the agent finished is there, once."""
    breached = {breach["trip_id"] for breach in found.breaches}
    flagged = {trip["trip_id"] for trip in found.trips if trip["breach"]}
    return {
        "lost": [
            *_missing(found.trips, sorted(told), "trip"),
            *(f"breach of trip {named} is lost" for named in sorted(flagged - breached)),
        ],
        "twice": _twice(found),
        "wrong": [
            *_never_driven(found, trips),
            *(
                f"trip {t['trip_id']} is not what was driven: {t}"
                for t in found.trips
                if not part(t)
            ),
            *(f"breach of trip {named} has no trip" for named in sorted(breached - flagged)),
            *_out_of_order(found),
            *_wrong_status(found, len(found.breaches)),
        ],
    }


def problems_of_real_cloud(found: Ending, trips: int) -> list[str]:
    """A car with a table beside the real service, whose revisions are what they are."""
    flagged = {trip["trip_id"] for trip in found.trips if trip["breach"]}
    breached = {breach["trip_id"] for breach in found.breaches}
    said = found.status
    return [
        *_missing(found.trips, range(trips), "trip"),
        *(f"breach of trip {named} is lost" for named in sorted(flagged - breached)),
        *(f"breach of trip {named} has no trip" for named in sorted(breached - flagged)),
        *(f"{named} was quarantined" for named in found.contents),
        *_never_driven(found, trips),
        *(_odd(trip) for trip in found.trips if trip["samples"] != SAMPLES or trip["partial"]),
        *_out_of_order(found),
        *([] if found.is_settled else [f"it is not settled: {said}, newest {found.newest}"]),
        *([] if said.get("theta") == found.newest_theta else [f"it runs {said.get('theta')}"]),
    ]


def differences(found: Ending, undisturbed: Ending) -> list[str]:
    """To a car that drove the same and was never killed.

    Error and revision in force of a trip are left out: both depend on when an answer arrives.
    """
    differ = [
        name
        for name in ("revision", "theta", "outbox_messages")
        if found.status.get(name) != undisturbed.status.get(name)
    ]
    if _facts(found.trips) != _facts(undisturbed.trips):
        differ.append("trips")
    if [b["trip_id"] for b in found.breaches] != [b["trip_id"] for b in undisturbed.breaches]:
        differ.append("breaches")
    return [f"its {name} differ from those of a car that was never killed" for name in differ]


def _facts(trips: list[Content]) -> set[tuple[Any, ...]]:
    return {tuple(map(trip.get, SUMMARY)) for trip in trips}


def whole(trip: Content) -> bool:
    """Whether a summary tells all of its trip."""
    return part(trip) and (
        trip["samples"] == SAMPLES
        and not trip["partial"]
        and trip["started_at"] == started_at(_number(trip))
        and trip["odometer_start"] == odometer_at(_number(trip))
        and trip["breach"] == breaches(_number(trip))
    )


def part(trip: Content) -> bool:
    """Whether a summary tells no more than was driven in its trip."""
    number = _number(trip)
    return bool(
        trip["samples"] <= SAMPLES
        and trip["refused_samples"] == 0
        and started_at(number) <= trip["started_at"] < started_at(number + 1)
        and odometer_at(number) <= trip["odometer_start"] < trip["odometer_end"]
        and trip["odometer_end"] < odometer_at(number + 1)
        and (breaches(number) or not trip["breach"])
    )


def _missing(there: list[Content], wanted: Any, kind: str) -> list[str]:
    found = {content["trip_id"] for content in there}
    return [f"{kind} {trip_id(n)} is lost" for n in wanted if trip_id(n) not in found]


def _twice(found: Ending) -> list[str]:
    """A fact that came with two contents; the same content again is the same fact."""
    return [f"message {named} came twice" for named, n in found.contents.items() if n > 1]


def _odd(trip: Content) -> str:
    return f"trip {trip['trip_id']} is not what was driven: {trip}"


def _never_driven(found: Ending, trips: int) -> list[str]:
    names = {content["trip_id"] for content in found.trips + found.breaches}
    known = {trip_id(number) for number in range(trips)}
    return [f"trip {named} was never driven" for named in sorted(names - known)]


def _out_of_order(found: Ending) -> list[str]:
    odometers = [breach["odometer"] for breach in found.breaches]
    return [] if odometers == sorted(odometers) else [f"breaches came in the order {odometers}"]


def _wrong_status(found: Ending, revision: int) -> list[str]:
    said = found.status
    wrong = []
    if said.get("revision") != revision:
        wrong.append(f"it runs revision {said.get('revision')}, not {revision}")
    if said.get("theta") != (theta(revision) if revision else None):
        wrong.append(f"it runs {said.get('theta')}")
    if said.get("outbox_messages") != 0:
        wrong.append(f"{said.get('outbox_messages')} messages are still in its outbox")
    return wrong


def _number(trip: Content) -> int:
    number = number_of(trip["trip_id"])
    return -1 if number is None else number
