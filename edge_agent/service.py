"""Put one agent together from its configuration, and drive it from a source.

The only place that knows which file, clock and socket are used. Must never hold logic that a test
would want without them.
"""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from common.bundle import Bundle
from common.messages import Status, encode
from common.signing import TrustedKeys, key_id, load_public_key
from common.trust import TrustStore
from edge_agent import __version__
from edge_agent.agent import Agent
from edge_agent.bundle_update.announcement import Receiver
from edge_agent.bundle_update.start import begin
from edge_agent.bundle_update.updater import BundleUpdates
from edge_agent.config import Config
from edge_agent.errors import BrokerUnreachableError, NoAnswerError
from edge_agent.mqtt.link import MqttLink
from edge_agent.sources import Item
from edge_agent.supervision import Supervisor
from edge_agent.timekeeping.clock import SYSTEM, Clock
from edge_agent.trips.driving import TripRules

POLL_EVERY_SAMPLES = 64
LIVE_QUEUE = 1024
LIVE_POLL_S = 0.1


@contextmanager
def running_agent(
    config: Config, clock: Clock = SYSTEM, *, updates: bool = False
) -> Iterator[Agent]:
    """An agent with its state open and its link started; both are closed at the end.

    It runs the bundle that was installed last; with `updates` it takes others over the air.
    """
    trusted = _trusted(config)
    start = begin(config, clock.unix, counts=updates)
    bundle, state = start.bundle, start.state
    try:
        link = MqttLink(config.vehicle_id, config.mqtt, _last_will(config, bundle), random.Random())  # noqa: S311
        rules = TripRules(config.trips, config.source.derived)
        agent = Agent(
            *(config.vehicle_id, bundle, trusted, state, link, config.limits, clock, rules),
            local=config.local_recalibration,
        )
        if updates:
            who = Receiver(
                config.vehicle_id, lambda: agent.identity.trusted, config.limits.bundle_bytes
            )
            jitter = random.Random()  # noqa: S311
            agent.take_updates(partial(BundleUpdates, start, config, who, clock, jitter))
        link.start()
        try:
            yield agent
            agent.say_goodbye()
            if agent.updates is not None:
                agent.updates.close(in_order=True)
        finally:
            if agent.updates is not None:
                agent.updates.close(in_order=False)
            link.stop()
    finally:
        state.close()


def feed(
    agent: Agent, items: Iterable[Item], settle_s: float, monotonic: Callable[[], float]
) -> Iterator[int]:
    """Take every item; yields the number of samples so far, now and then.

    With `settle_s` above zero a trip begins only when the outcome of the one before is known.
    Raises NoAnswerError when that takes longer.
    """
    for number, item in enumerate(items, 1):
        if agent.driving.ends_trip(item):
            finish_trip(agent, settle_s, monotonic)
        agent.take(item)
        if number % POLL_EVERY_SAMPLES == 0:
            agent.poll()
            yield number


def feed_live(
    agent: Agent,
    items: Iterable[Item],
    stopped: Callable[[], bool],
    monotonic: Callable[[], float],
    supervisor: Supervisor,
    look: Callable[[], None] = lambda: None,
) -> bool:
    """Take items as they come, serving the link in between; returns at the end of the source.

    A car that falls silent has ended its trip: nothing else may ever come to say so. Each turn of
    the loop is a sign of life: one that hangs is started again from outside. `look` is called in
    each, for the live view. Returns True when, between two trips, another bundle was swapped in:
    the agent must begin anew.
    """
    arrived: queue.Queue[Item | BaseException | None] = queue.Queue(maxsize=LIVE_QUEUE)
    threading.Thread(target=_read_into, args=(items, arrived), name="source", daemon=True).start()
    last_s = monotonic()
    supervisor.ready()
    while not stopped():
        supervisor.alive()
        supervisor.status(_summary(agent))
        look()
        try:
            item = arrived.get(timeout=LIVE_POLL_S)
        except queue.Empty:
            agent.driving.end_silent_trip(monotonic() - last_s)
            agent.poll()
            if _has_swapped(agent):
                return True
            continue
        last_s = monotonic()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return False
        if arrived.empty() and _has_swapped(agent, item):
            return True
        agent.take(item)
        agent.poll()
    return False


def _has_swapped(agent: Agent, item: Item | None = None) -> bool:
    """Whether another bundle was swapped in, between two trips: `item` begins the next one."""
    updates = agent.updates
    if updates is None or not updates.is_staged:
        return False
    if item is not None and agent.driving.ends_trip(item):
        agent.driving.end_trip()
    return not agent.driving.is_in_trip and updates.swap()


def _summary(agent: Agent) -> str:
    link = "connected" if agent.connected else "offline, keeping what it cannot send"
    return f"{link}; revision {agent.twin.revision}, {agent.statistics.trips} trips since the start"


def _read_into(items: Iterable[Item], arrived: queue.Queue[Item | BaseException | None]) -> None:
    """The source may block for as long as the car sleeps: it has its own thread."""
    try:
        for item in items:
            arrived.put(item)
        arrived.put(None)
    except BaseException as error:  # noqa: BLE001 - carried to the thread that can act on it
        arrived.put(error)


def finish_trip(agent: Agent, settle_s: float, monotonic: Callable[[], float]) -> None:
    """Close the running trip and, with `settle_s` above zero, wait for its outcome."""
    agent.driving.end_trip()
    if settle_s > 0:
        wait_until(agent, agent.is_settled, settle_s, monotonic)


def wait_until(
    agent: Agent, reached: Callable[[], bool], seconds: float, monotonic: Callable[[], float]
) -> None:
    """Serve the link until `reached()`. Raises NoAnswerError after `seconds`."""
    deadline = monotonic() + seconds
    while not reached():
        if monotonic() > deadline:
            raise NoAnswerError(len(agent.status().awaiting), seconds)
        agent.poll(0.05)


def wait_connected(
    agent: Agent, config: Config, seconds: float, monotonic: Callable[[], float]
) -> None:
    """Serve the link until connected. Raises BrokerUnreachableError after `seconds`."""
    deadline = monotonic() + seconds
    while not agent.connected:
        if monotonic() > deadline:
            mqtt = config.mqtt
            raise BrokerUnreachableError(mqtt.host, mqtt.port, f"no answer for {seconds:g} s")
        agent.poll(0.05)


def _trusted(config: Config) -> TrustStore:
    """What is trusted at installation. Raises KeyFileError."""
    roots = _keys(config, config.root_keys) if config.root_keys else None
    return TrustStore(_keys(config, config.trusted_keys), roots)


def _keys(config: Config, names: Sequence[str]) -> TrustedKeys:
    keys = [load_public_key(config.path(name)) for name in names]
    return {key_id(key): key for key in keys}


def _last_will(config: Config, bundle: Bundle) -> bytes:
    will = Status(
        vehicle_id=config.vehicle_id,
        online=False,
        agent_version=__version__,
        bundle=bundle.sha256,
        revision=0,
    )
    return encode(will)
