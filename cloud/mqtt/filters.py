"""What the service subscribes to: every vehicle's messages, alone or shared with others of a group.

Must never widen a filter beyond the contract's topics.
"""

from __future__ import annotations

from common.topics import UPWARD, subscription


def filters(shared_group: str | None) -> list[str]:
    """Of all members of a group the broker gives each message to one (MQTT 5, 4.8.2).

    What is retained it gives to none of them: a vehicle's status comes with its next connection.
    """
    plain = [subscription(kind) for kind in UPWARD]
    return plain if shared_group is None else [f"$share/{shared_group}/{name}" for name in plain]
