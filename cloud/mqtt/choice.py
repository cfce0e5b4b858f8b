"""Which client carries the link: what the configuration says.

Must never load a client that is not asked for: AWS's is an extra.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from cloud.config import Mqtt
from cloud.errors import LinkError
from cloud.mqtt.link import MqttLink
from cloud.mqtt.protocol import Inbox, Link
from cloud.mqtt.session import Session


def open_link(
    config: Mqtt,
    inbox: Inbox,
    connected: Callable[[], None],
    jitter: random.Random,
    session: Session | None = None,
) -> Link:
    """A link that has not started. Raises LinkError: what cannot be used, and why."""
    if config.transport == "paho":
        return MqttLink(config, inbox, connected, jitter, session)
    try:
        from cloud.mqtt.aws_link import AwsLink  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise LinkError(
            f'transport "aws" needs AWS\'s client ({error}): pip install "living-twin[aws]"'
        ) from error
    return AwsLink(config, inbox, connected, session)
