"""The `edge-agent` command: run, replay a file, show the status, check, enroll.

Must never need more than the vehicle has: argparse, no colours, no progress library.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from common.errors import TransientError, TwinError
from edge_agent import __version__, check_command, enroll_command, sources
from edge_agent.agent import Agent
from edge_agent.bundle_update.restart import begin_anew
from edge_agent.bundle_update.start import installed_bundle
from edge_agent.config import Config, load_config
from edge_agent.errors import StateUnusableError, StorageError
from edge_agent.live.opening import live_view
from edge_agent.mqtt import certificate_expiry
from edge_agent.parameters import cloud_word, local_recalibration, revision_records
from edge_agent.service import (
    feed,
    feed_live,
    finish_trip,
    running_agent,
    wait_connected,
    wait_until,
)
from edge_agent.storage import kept, outbox
from edge_agent.storage.aside import files_aside
from edge_agent.storage.state_file import connect_to_read
from edge_agent.supervision import Supervisor
from edge_agent.timekeeping import timekeeper
from edge_agent.timekeeping.clock import SYSTEM

EXIT_CODES = """\
exit codes: 0 done, 1 failed, 2 usage, 5 the broker or the cloud did not answer,
            6 start it again: another bundle was swapped in

examples:
  edge-agent run
  some-program | edge-agent run --config agent.toml --source -
  edge-agent replay trips.csv --config agent.toml --wait-for-cloud 30
  edge-agent status --watch
  edge-agent enroll --vehicle vehicle-0001
"""


CONFIG = Path("/etc/edge-agent/agent.toml")  # where the installer puts it
LAST_CHANCE_S = 2.0


class Stopped(Exception):  # noqa: N818 - no error: somebody asked the agent to stop
    """SIGTERM or SIGINT."""


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    _configure_logging(logging.INFO if options.verbose else logging.WARNING)
    try:
        code: int = options.act(options, load_config(options.config))
    except TwinError as error:
        _complain(str(error))
        return 5 if isinstance(error, TransientError) and not isinstance(error, StorageError) else 1
    return code


def _configure_logging(level: int) -> None:
    """One line an event, times in UTC, as the cloud writes them."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s event=%(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler])


def _run(options: argparse.Namespace, config: Config) -> int:
    """Live: a stop in the middle leaves the trip to the next start; a file ends with its trip."""
    config = _with_source(config, options.source)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    supervisor = Supervisor(os.environ, os.getpid(), time.monotonic)
    with running_agent(config, updates=True) as agent:
        if config.source.kind != "file":
            agent.driving.keep_trips()
        source = sources.opened(config, agent.identity.manifest)
        with live_view(agent, config, SYSTEM) as look:
            has_swapped = feed_live(agent, source, stop.is_set, SYSTEM.monotonic, supervisor, look)
        if not has_swapped:
            _end(agent, config, supervisor, was_asked=stop.is_set())
        is_empty = not agent.statistics.items and not stop.is_set()
    if has_swapped:  # nothing is waited for: the car may drive off
        return begin_anew()
    if is_empty:
        print("edge-agent: the source ended without a single sample", file=sys.stderr)
    return 1 if is_empty else 0


def _end(agent: Agent, config: Config, supervisor: Supervisor, *, was_asked: bool) -> None:
    supervisor.stopping()
    if was_asked:
        agent.driving.leave_trip()
    else:
        agent.driving.end_trip()
    _drain(agent, config, seconds=LAST_CHANCE_S, required=False)


def _with_source(config: Config, named: str | None) -> Config:
    if named is None:
        return config
    where = (
        {"kind": "stdin"} if named == "-" else {"kind": "file", "path": str(Path(named).resolve())}
    )
    return msgspec.structs.replace(config, source=msgspec.structs.replace(config.source, **where))


def _replay(options: argparse.Namespace, config: Config) -> int:
    """A file: a stop in the middle leaves the trip to the next replay, which begins it again."""
    manifest = installed_bundle(config).manifest
    items = sources.recorded(options.file, config, manifest)
    with running_agent(config) as agent:
        try:
            if options.wait_for_cloud > 0:
                wait_connected(agent, config, options.wait_for_cloud, time.monotonic)
                wait_until(agent, agent.is_settled, options.wait_for_cloud, time.monotonic)
            _drive(agent, items, options.wait_for_cloud)
            required = options.wait_for_cloud > 0
            _drain(agent, config, options.wait_for_cloud or LAST_CHANCE_S, required=required)
        except Stopped:
            return 1
        _print_replay(agent, as_json=options.json)
    return 0


def _drive(agent: Agent, items: Iterable[sources.Item], settle_s: float) -> None:
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    for number in feed(agent, items, settle_s, time.monotonic):
        if sys.stderr.isatty() and number % 4096 == 0:
            print(f"\r{number} samples, {agent.statistics.trips} trips", end="", file=sys.stderr)
    finish_trip(agent, settle_s, time.monotonic)


def _drain(agent: Agent, config: Config, seconds: float, *, required: bool) -> None:
    """Give the cloud a moment to take the rest; what it does not take stays on disk."""
    try:
        wait_connected(agent, config, seconds, time.monotonic)
        wait_until(agent, agent.is_drained, seconds, time.monotonic)
    except TransientError:
        if required:
            raise


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise Stopped


def _print_replay(agent: Agent, *, as_json: bool) -> None:
    found = agent.statistics
    facts = {
        "vehicle_id": agent.identity.vehicle_id,
        "trips": found.trips,
        "trips_passed_over": found.passed_over,
        "breaches": found.breaches,
        "revisions_applied": found.applied,
        "revisions_refused": found.refused,
        "revision": agent.twin.revision,
        "samples_refused": agent.status().refused_samples,
        "short_trips": agent.short_trips(),
    }
    _print(facts, as_json=as_json)
    if not found.trips and not found.passed_over:
        hint = "`edge-agent status` shows why samples were refused; is vehicle_id the file's?"
        print(f"edge-agent: no trip was found for {facts['vehicle_id']}: {hint}", file=sys.stderr)


def _status(options: argparse.Namespace, config: Config) -> int:
    if options.watch:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        from edge_agent import watch_command  # noqa: PLC0415 - nothing that driving needs

        return watch_command.run(config, as_json=options.json)
    path = config.path(config.state)
    if not path.exists():
        raise StateUnusableError(path, "there is none", "Has the agent run yet?")
    try:
        with closing(connect_to_read(path)) as db:
            expiry = certificate_expiry.facts(config.mqtt, datetime.now(UTC), _complain)
            aside = {"set_aside": [file.name for file in files_aside(path)]}
            _print({**_facts(db), **aside, **expiry}, as_json=options.json)
    except (sqlite3.Error, KeyError, ValueError) as error:
        remedy = (
            "It is no agent's state, an older version's or damaged: when the agent starts it "
            "begins a new one with what can be saved."
        )
        raise StateUnusableError(path, f"it cannot be read ({error})", remedy) from error
    return 0


def _facts(db: sqlite3.Connection) -> dict[str, Any]:
    depth, total = outbox.size(db)
    on_trial = revision_records.trial(db)
    confirmed = [json.loads(record.revision) for _, record in revision_records.confirmed(db)]
    revision = json.loads(on_trial.revision) if on_trial else next(iter(confirmed), None)
    identity = dict(db.execute("SELECT key, value FROM identity"))
    unknown = timekeeper.unknown(db, "refused")
    return {
        "vehicle_id": identity["vehicle_id"],
        "bundle": identity["bundle"],
        "agent_version": __version__,
        "revision": revision["number"] if revision else 0,
        "trips_since_word": cloud_word.trips_since(db),
        "on_trial": on_trial is not None,
        "provisional": local_recalibration.step_on_disk(db, revision["number"] if revision else 0),
        "confirmed_revisions": [record["number"] for record in confirmed],
        "theta": revision["theta"] if revision else None,
        "time_known": timekeeper.is_newest_boot_known(db),
        "outbox_messages": depth,
        "outbox_bytes": total,
        "breaches_awaiting_an_answer": len(kept.awaiting(db)),
        "counters": kept.counters(db),
        "last_refused": [
            {
                "at": refusal.at,
                "time_known": str(refusal.number) not in unknown,
                "kind": refusal.kind,
                "reason": refusal.reason,
            }
            for refusal in kept.refusals(db, 5)
        ],
    }


def _complain(text: str) -> None:
    print(f"edge-agent: {text}", file=sys.stderr)


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="The vehicle's side of the living twin: predict, compare, keep, publish.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _command(commands, "run", _run, "run on the source that the configuration names")
    run.add_argument(
        "--source",
        metavar="SOURCE",
        help="instead of the configured one: - for lines on standard input, or a table",
    )
    replay = _command(commands, "replay", _replay, "take the trips of a table, then stop")
    replay.add_argument("file", type=Path, metavar="FILE", help="CSV (plain or gzip) or Parquet")
    replay.add_argument(
        "--wait-for-cloud",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="begin a trip only when the cloud has answered the one before (0: do not wait)",
    )
    status = _command(commands, "status", _status, "show revision, outbox and what was refused")
    status.add_argument(
        "--watch", action="store_true", help="the running agent, once a second (needs [live])"
    )
    _command(commands, "check", check_command.run, "say whether the agent would start here")
    enroll_command.add_arguments(
        _command(
            commands, "enroll", enroll_command.run, "make this vehicle's key, take its certificate"
        )
    )
    for command in (replay, status):
        command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def _command(commands: Any, name: str, act: Any, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--config",
        type=Path,
        default=CONFIG,
        metavar="FILE",
        help=f"the agent's TOML file (default: {CONFIG})",
    )
    command.add_argument("-v", "--verbose", action="store_true", help="log every trip and verdict")
    command.set_defaults(act=act)
    return command


if __name__ == "__main__":
    sys.exit(main())
