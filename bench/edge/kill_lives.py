"""The lives of one car whose agent is killed over and over: what it reads, when it dies.

Two kinds of source. A *table* is played again from a little before where the agent's last word
stands, as a logger on the vehicle keeps it: nothing may be missing at the end. A *stream* drives on
whatever becomes of the agent: what it sends meanwhile is gone. Must never take the agent's luck for
the truth.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import random
import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from bench.edge.made_up_car import Car, number_of
from bench.edge.spawner import Reply, Request, Spawner

AHEAD: Final = 12
AGAIN: Final = 2
PIPE_BYTES: Final = 4096  # about a trip: what is in it dies with the agent
BY_EXEC: Final = 0.15
AT_A_CALL: Final = 0.5
CALLS: Final = {"pwrite64": 150, "fdatasync": 30, "sendto": 40, "recvfrom": 30}
WORD: Final = re.compile(r"event=(\w+) vehicle=\S+ (?:trip=(\S+))?")
PHASES: Final = {
    "": "starting",
    "trip_passed_over": "passing over what is done",
    "trip_continued": "in a trip that goes on",
    "trip_not_continued": "in a trip",
    "trip_finished": "after a trip's commit",
    "revision_judged": "after a verdict's commit",
}


@dataclass
class Tally:
    """How often the agent of one car was killed, and in the middle of what."""

    lives: int = 0
    kills: int = 0
    by_exec: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    untold_commits: int = 0
    overdue: int = 0
    exits: list[int] = field(default_factory=list)

    def add(self, request: Request, reply: Reply, last_word: str) -> None:
        """One more life."""
        self.lives += 1
        self.overdue += reply.is_overdue
        if reply.signal != 9:  # noqa: PLR2004 - SIGKILL
            self.exits += [reply.code] if reply.code else []
            return
        self.kills += 1
        self.by_exec += request.how == "exec"
        self.phases[f"at {request.call}" if request.call else PHASES.get(last_word, "else")] += 1


@dataclass
class Lives(ABC):
    """Of one car. `told` are the trips that the agent said to have finished."""

    car: Car
    folder: Path
    spawner: Spawner
    rng: random.Random
    can_trace: bool
    tally: Tally = field(default_factory=Tally)
    told: set[int] = field(default_factory=set)

    @abstractmethod
    def killed_once(self) -> None:
        """One life that is meant to end by kill."""

    @abstractmethod
    def finish(self, more: int) -> int:
        """A life that is let alone, to the end of a trip; how many trips there were in all."""

    @abstractmethod
    def idle(self) -> None:
        """A life that is let alone, without anything new."""

    @property
    def log(self) -> Path:
        """Everything that the agent has said, over all its lives."""
        return self.folder / "agent.log"

    def plan(self, source: str, pipe: str = os.devnull) -> Request:
        """When the next life is to end: at a call, or at a time from its start on."""
        request = self.to_the_end(source, pipe)
        if self.rng.random() < BY_EXEC:
            request = replace(request, how="exec")
        if self.can_trace and self.rng.random() < AT_A_CALL:
            call = self.rng.choice(list(CALLS))
            return replace(request, call=call, count=self.rng.randint(1, CALLS[call]))
        longest_s = self.rng.choice((0.3, 0.7, 1.2)) + (1.0 if request.how == "exec" else 0.0)
        return replace(request, after_s=self.rng.uniform(0.0, longest_s))

    def to_the_end(self, source: str, pipe: str = os.devnull) -> Request:
        """A life that nobody disturbs."""
        arguments = ["run", "-v", "--config", str(self.folder / "agent.toml"), "--source", source]
        return Request(arguments, str(self.log), pipe)

    def listen(self, request: Request, reply: Reply, start: int) -> None:
        """Read what the agent said in this life."""
        last_word = ""
        with self.log.open("rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
        for word, named in WORD.findall(text):
            number = number_of(named)
            if word in {"trip_finished", "trip_passed_over"} and number is not None:
                self.tally.untold_commits += word != "trip_finished" and number not in self.told
                self.told.add(number)
            last_word = word if word in PHASES else last_word
        self.tally.add(request, reply, last_word)

    def said(self) -> int:
        """How long the log is now."""
        self.log.touch()  # an agent may die before it has made it
        return self.log.stat().st_size


class TableLives(Lives):
    """A car whose trips stand in a table."""

    def killed_once(self) -> None:
        """One life that is meant to end by kill, over the next trips."""
        self._live(AHEAD, self.plan)

    def finish(self, more: int) -> int:
        """The next `more` trips."""
        trips = self._reached() + more
        self._live(more, self.to_the_end)
        return trips

    def idle(self) -> None:
        """The last trips again."""
        self._live(0, self.to_the_end)

    def _live(self, ahead: int, request_for: Callable[[str], Request]) -> None:
        reached = self._reached()
        trips = range(max(0, reached - AGAIN), max(1, reached + ahead))
        table = write_table(self.folder / "trips.csv", self.car, trips)
        start, request = self.said(), request_for(str(table))
        self.spawner.begin(request)
        self.listen(request, self.spawner.ended(), start)

    def _reached(self) -> int:
        """All trips below this number are told."""
        return max(self.told, default=-1) + 1


def write_table(path: Path, car: Car, trips: range) -> Path:
    """These trips, put in place whole."""
    rows = [row for number in trips for row in car.rows(number)]
    beside = path.with_suffix(".new")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return beside.replace(path)


class StreamLives(Lives):
    """A car that sends its samples to the agent's standard input, and drives on without it."""

    trip = 0
    _rows: list[dict[str, Any]] | None = None

    def killed_once(self) -> None:
        """One life that is meant to end by kill; samples are sent until it does."""
        self._live(self.plan("-", str(self._pipe())), until_trip=None)
        for _ in range(self.rng.randint(0, 8)):
            self._next_row()

    def finish(self, more: int) -> int:
        """To the end of the running trip, and `more`."""
        trips = self.trip + 1 + more
        self._live(self.to_the_end("-", str(self._pipe())), until_trip=trips)
        return trips

    def idle(self) -> None:
        """A car that stands: the agent ends with code 1, for it got no sample."""
        request = replace(self.to_the_end("-"), log=os.devnull)
        self.spawner.begin(request)
        self.spawner.ended()

    def _pipe(self) -> Path:
        path = self.folder / "samples"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        return path

    def _live(self, request: Request, until_trip: int | None) -> None:
        start = self.said()
        self.spawner.begin(request)
        pipe = self._opened(request.input)
        while pipe is not None and (until_trip is None or self.trip < until_trip):
            if self.spawner.has_ended() or not self._send(pipe):
                break
        if pipe is not None:
            os.close(pipe)
        self.listen(request, self.spawner.ended(), start)

    def _opened(self, path: str) -> int | None:
        """The pipe, once the agent reads it; None when it died before."""
        while not self.spawner.has_ended():
            with suppress(OSError):  # nobody reads yet
                pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
                return pipe
            time.sleep(0.001)
        return None

    def _send(self, pipe: int) -> bool:
        """One sample; when the pipe is full, the agent has to catch up first. False: it is dead."""
        try:
            os.write(pipe, json.dumps(self._row()).encode() + b"\n")
        except BlockingIOError:
            time.sleep(0.01)
        except BrokenPipeError:
            return False
        else:
            self._next_row()
            time.sleep(0.003)
        return True

    def _row(self) -> dict[str, Any]:
        if not self._rows:
            self._rows = list(self.car.rows(self.trip))
        return self._rows[0]

    def _next_row(self) -> None:
        self._row()
        assert self._rows is not None  # noqa: S101 - just filled
        del self._rows[0]
        self.trip += not self._rows
