"""Sent = stored = readable through the API, by id: what is missing, and what nobody sent.

Must never look into the database: an operator cannot either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bench.figures import Figure
from bench.fleet.driving import Driven
from bench.fleet.staging import Installation
from cloud.client import TwinClient
from common.messages import message_id

Id = tuple[str, str]  # vehicle, message


@dataclass(frozen=True)
class Balance:
    """Counts of ids: `lost` were sent and cannot be read, `foreign` the other way round.

    `twice` counts breaches that brought more than one revision.
    """

    read: int
    lost: int
    foreign: int
    twice: int

    @property
    def off(self) -> int:
        """Nothing, where it is conserved."""
        return self.lost + self.foreign + self.twice


def conserved(at: Installation, driven: Sequence[Driven], load: str) -> Figure:
    """The figure of all loads of an installation: how many ids are lost, doubled or nobody's."""
    trips = [one for found in driven for one in found.trips]
    breaches = [one for found in driven for one in found.breaches]
    kept = balance(at, trips, breaches)
    sent = len(trips) + len(breaches)
    note = (
        f"{sent:,} ids sent, {kept.read:,} read; lost {kept.lost}, twice {kept.twice}, "
        f"nobody's {kept.foreign}; the database has {at.stored_mib():,.0f} MiB"
    )
    return Figure(f"off balance, {load}", kept.off, "", 0, note=note)


def balance(at: Installation, trips: Collection[Id], breaches: Collection[Id]) -> Balance:
    """What the API shows of every vehicle against what the vehicles sent."""
    read: set[Id] = set()
    caused: Counter[Id] = Counter()
    with TwinClient(at.api, at.api_key) as client:
        for vehicle in [item.vehicle_id for item in client.list_vehicles(limit=500)]:
            for trip in client.list_trips(vehicle, limit=500):
                read.add((vehicle, message_id(vehicle, trip.trip_id, "trip")))
                if trip.breach:
                    read.add((vehicle, message_id(vehicle, trip.trip_id, "breach")))
            for revision in client.list_revisions(vehicle, limit=500):
                if revision.cause.kind == "breach":
                    caused[vehicle, revision.cause.message_id] += 1
    sent = {*trips, *breaches}
    return Balance(
        read=len(read),
        lost=len(sent - read),
        foreign=len(read - sent) + len(caused.keys() - sent),
        twice=sum(count > 1 for count in caused.values()),
    )
