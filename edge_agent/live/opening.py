"""Switch the live view on for one agent: what the loop feeds, and what others look at.

Must never keep the agent from starting: a port that is taken is a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from common.bundle import load_bundle
from edge_agent.agent import Agent
from edge_agent.config import Config, Live
from edge_agent.timekeeping.clock import Clock

log = logging.getLogger(__name__)


@contextmanager
def live_view(agent: Agent, config: Config, clock: Clock) -> Iterator[Callable[[], None]]:
    """What the loop calls each time it comes round; the view is served until the end."""
    if config.live is None:
        yield lambda: None
    else:
        with _served(agent, config, config.live, clock) as take:
            yield take


@contextmanager
def _served(agent: Agent, config: Config, live: Live, clock: Clock) -> Iterator[Callable[[], None]]:
    # A vehicle without the view carries no HTTP server in its memory.
    from edge_agent.live.battery import BatteryView  # noqa: PLC0415
    from edge_agent.live.feed import LiveFeed, shown  # noqa: PLC0415
    from edge_agent.live.server import LiveServer  # noqa: PLC0415

    feed = LiveFeed(agent, clock)
    battery = BatteryView(load_bundle(config.path(config.bundle)), clock.monotonic)
    try:
        server = LiveServer(live.port, lambda: msgspec.json.encode(shown(feed.newest, battery)))
    except OSError as error:
        log.warning("no_live_view port=%d why=%r: the agent drives on", live.port, str(error))
        yield lambda: None
        return
    server.start()
    log.info("live_view http://127.0.0.1:%d/", server.port)
    try:
        yield feed.take
    finally:
        server.stop()
