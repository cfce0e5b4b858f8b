"""Mosquitto's configuration and access list for a fleet, written out from the contract's topics.

deploy/mosquitto/ ships both for one service; a test compares. Pure. Must never let a vehicle reach
a topic that does not carry its own name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.topics import DOWNWARD, UPWARD, Kind, topic

_HEAD: Final = """\
# Who may do what. %u is the common name of the client's certificate: for a vehicle, its id.
# What is not listed is forbidden, the broker's own $SYS topics included.

# A vehicle, on its own topics only and in one direction each."""
_SERVICE: Final = "# The cloud service. No vehicle may ever be given a certificate with this name."


def access_list(services: Sequence[str]) -> str:
    """The access list (twin.acl) for these services and any number of vehicles."""
    own = [f"pattern write {_topic('%u', kind)}" for kind in UPWARD]
    own += [f"pattern read {_topic('%u', kind)}" for kind in DOWNWARD]
    blocks = ["\n".join([_HEAD, *own])]
    for service in services:
        lines = [_SERVICE, f"user {service}"]
        lines += [f"topic read {_topic('+', kind)}" for kind in UPWARD]
        lines += [f"topic write {_topic('+', kind)}" for kind in DOWNWARD]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _topic(who: str, kind: Kind) -> str:
    return topic("x", kind).replace("/x/", f"/{who}/")
