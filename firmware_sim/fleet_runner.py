"""Host many real agents in one process, each on its own thread, link and state file.

The one place of the simulator that touches the agent itself; it does what `edge-agent replay` does,
for many vehicles at once. Must never reach into an agent beyond its public methods.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edge_agent.agent import Agent
from edge_agent.config import Config
from edge_agent.run_statistics import Statistics
from edge_agent.service import (
    POLL_EVERY_SAMPLES,
    finish_trip,
    running_agent,
    wait_connected,
    wait_until,
)
from edge_agent.sources import Item

SWITCH_INTERVAL_S = 0.0005
MAX_VEHICLES = 300  # paho's select() serves about 340 clients in one process


@dataclass(frozen=True)
class Job:
    """One vehicle: its agent's configuration, and its trips in order."""

    config: Config
    trips: Iterable[Iterable[Item]]


@dataclass(frozen=True)
class Outcome:
    """What one agent did. Bytes are payloads and topics."""

    vehicle_id: str
    statistics: Statistics
    samples: int
    sent_bytes: int
    received_bytes: int


def run_fleet(jobs: Sequence[Job], answer_s: float, on_trip: Callable[[], None]) -> list[Outcome]:
    """Drive every vehicle through its trips; each trip waits for the outcome of the one before.

    Raises BrokerUnreachableError or NoAnswerError when that takes longer than `answer_s`.
    """
    if len(jobs) > MAX_VEHICLES:
        message = f"{len(jobs)} agents do not fit one process: run at most {MAX_VEHICLES} each."
        raise ValueError(message)
    # With Python's 5 ms an answer would wait for its vehicle's turn before it is looked at.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    at_the_wheel = threading.Lock()
    with ThreadPoolExecutor(max_workers=len(jobs), thread_name_prefix="vehicle") as pool:
        running = [pool.submit(_drive, job, answer_s, on_trip, at_the_wheel) for job in jobs]
        return [future.result() for future in running]


def _drive(
    job: Job, answer_s: float, on_trip: Callable[[], None], at_the_wheel: threading.Lock
) -> Outcome:
    """Drive one vehicle.

    Computing threads would only fight for the interpreter: one drives at a time, while the others
    write their trip, talk to the broker or wait for the cloud.
    """
    with running_agent(job.config) as agent:
        wait_connected(agent, job.config, answer_s, time.monotonic)
        samples = 0
        for trip in job.trips:
            with at_the_wheel:
                samples += _take_trip(agent, trip)
            finish_trip(agent, answer_s, time.monotonic)
            on_trip()
        wait_until(agent, agent.is_drained, answer_s, time.monotonic)
        sent, received = agent.traffic_bytes()
        return Outcome(agent.identity.vehicle_id, agent.statistics, samples, sent, received)


def _take_trip(agent: Agent, trip: Iterable[Item]) -> int:
    number = 0
    for number, item in enumerate(trip, 1):
        agent.take(item)
        if number % POLL_EVERY_SAMPLES == 0:
            agent.poll()
    agent.poll()
    return number
