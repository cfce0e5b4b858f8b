"""The live view: what the loop leaves once a second, what a head unit and a terminal show of it."""

from __future__ import annotations

import http.client
import json
import os
import pty
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from common import calibration
from common.bundle import Bundle
from common.health import state_of_health
from common.model import VoltageModel
from common.remaining import remaining_until_cutoff
from demo.loop import free_port
from edge_agent.config import load_config
from edge_agent.live import server as live_server
from edge_agent.live.battery import EVERY_S, SEED, BatteryView
from edge_agent.live.feed import LiveFeed, shown
from edge_agent.live.opening import live_view
from edge_agent.live.server import LiveServer
from edge_agent.live.text import PLAIN_BARS, line, screen, sparkline
from edge_agent.live.view import RECENT_POINTS, LiveView
from edge_agent.storage import outbox
from edge_agent.timekeeping.clock import Clock
from tests.support_edge import Rig, aged_bundle, drive, revision_for, signed
from tests.test_edge_cli import AGENT, ENVIRONMENT, Installation, cells
from tests.waiting import eventually

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return aged_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def rig(tmp_path: Path, bundle: Bundle) -> Iterator[Rig]:
    made = Rig(tmp_path / "state.db", bundle)
    yield made
    made.state.close()


def clock_of(rig: Rig) -> Clock:
    return Clock(rig.clock.unix, rig.clock.monotonic)


def feed_of(rig: Rig) -> LiveFeed:
    return LiveFeed(rig.agent, clock_of(rig))


def driven(rig: Rig, feed: LiveFeed, count: int, *, every_s: float = 1.0) -> None:
    for sample in drive(rig.bundle, count=count):
        rig.agent.take(sample)
        rig.clock.now += every_s
        feed.take()


def seen(rig: Rig, feed: LiveFeed) -> LiveView:
    """What somebody who looks is given, by way of its bytes."""
    view = shown(feed.newest, BatteryView(rig.bundle, rig.clock.monotonic))
    return msgspec.json.decode(msgspec.json.encode(view), type=LiveView)


# ---- what the loop leaves --------------------------------------------------------------------


def test_the_view_is_the_trip_as_it_stands(rig: Rig) -> None:
    feed = feed_of(rig)
    driven(rig, feed, 60)
    view, trip = seen(rig, feed), rig.agent.driving.so_far()
    assert trip is not None
    assert view.trip is not None
    assert view.trip.samples == 60
    assert view.trip.error_v == pytest.approx(trip.error_v, abs=1e-6)
    assert view.trip.measured_v == pytest.approx(trip.newest.measured_v, abs=1e-4)
    assert view.trip.band95_v == pytest.approx(trip.newest.band95_v, abs=1e-4)
    assert view.revision == 0
    assert view.is_connected is False
    assert len(view.recent.at) == 60
    rig.agent.driving.end_trip()
    rig.clock.now += 1.0
    feed.take()
    assert seen(rig, feed).trip is None
    assert seen(rig, feed).outbox_messages == outbox.size(rig.state.connection)[0] == 2


def test_the_loop_pays_once_a_second_and_memory_is_bounded(rig: Rig) -> None:
    feed = feed_of(rig)
    asked: list[str] = []
    rig.state.connection.set_trace_callback(asked.append)
    driven(rig, feed, 100, every_s=0.01)
    questions = [text for text in asked if text.startswith("SELECT COUNT")]
    assert len(questions) <= 4  # of the picture that is made once in this second
    driven_feed = seen(rig, feed)
    assert len(driven_feed.recent.at) <= 2
    rig.agent.driving.end_trip()
    for sample in drive(rig.bundle, "trip-2", count=RECENT_POINTS + 50):
        rig.agent.take(sample)
        rig.clock.now += 1.0
        feed.take()
    assert len(seen(rig, feed).recent.at) == RECENT_POINTS


def test_a_disk_in_trouble_leaves_the_numbers_of_before(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = feed_of(rig)
    rig.drive()
    rig.clock.now += 1.0
    feed.take()

    def fails(_db: sqlite3.Connection) -> tuple[int, int]:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(outbox, "size", fails)
    rig.clock.now += 1.0
    feed.take()
    assert seen(rig, feed).outbox_messages == 2


# ---- how the battery is ----------------------------------------------------------------------


def test_health_and_range_are_those_of_the_calibration_with_their_state(rig: Rig) -> None:
    feed, manifest = feed_of(rig), rig.bundle.manifest
    driven(rig, feed, 30)
    battery, trip = seen(rig, feed).battery, rig.agent.driving.so_far()
    assert battery is not None
    assert trip is not None
    assert (battery.state, battery.odometer) == ("learning", trip.odometer)
    assert battery.reason is not None
    assert "no calibration yet" in battery.reason
    model = VoltageModel(rig.bundle)
    here = calibration.extrapolate(rig.agent.twin.estimate, manifest, trip.odometer)
    health = state_of_health(here, model, manifest, np.random.default_rng(SEED))
    assert health is not None
    assert battery.health == health.ratio
    conditions = {"distance_km": trip.newest.row[0], "load_avg": trip.feature_means[1]}
    left = remaining_until_cutoff(
        trip.estimate, conditions, model, manifest, np.random.default_rng(SEED)
    )
    assert battery.remaining == left.distance_km


def test_between_trips_the_range_is_that_of_a_trip_from_its_beginning(rig: Rig) -> None:
    view = seen(rig, feed_of(rig))
    assert view.battery is not None
    assert view.battery.remaining is not None
    assert view.battery.remaining.value == pytest.approx(300, abs=100)


def test_a_new_revision_is_seen_at_once_and_the_same_question_is_not_computed_again(
    rig: Rig,
) -> None:
    feed, battery = feed_of(rig), BatteryView(rig.bundle, rig.clock.monotonic)
    rig.drive()
    first = shown(feed.newest, battery)
    assert shown(feed.newest, battery).battery is first.battery
    rig.agent._receive("twin/v1/car-1/parameters", signed(revision_for(rig.bundle)))
    rig.clock.now += 1.0
    feed.take()
    second = shown(feed.newest, battery)
    assert second.revision == 1
    assert second.battery is not first.battery
    assert second.battery is not None
    assert second.battery.reason is not None
    assert "trips seen" in second.battery.reason  # a breach has brought the revision
    rig.clock.now += EVERY_S
    assert shown(feed.newest, battery).battery is not second.battery


def test_breaches_that_bring_nothing_make_the_estimate_doubtful(rig: Rig) -> None:
    for number in range(1, 5):
        rig.drive(f"trip-{number}", odometer=1000.0 + 500 * number)
    good = revision_for(rig.bundle)
    tight = [{0: 1e-8, 4: 1e-8, 7: 1e-14}.get(i, 0.0) for i in range(10)]
    made = msgspec.structs.replace(good, covariance=tight)
    rig.agent._receive("twin/v1/car-1/parameters", signed(made))
    feed = feed_of(rig)
    assert rig.agent.twin.revision == 1
    rig.agent.statistics.failures_in_a_row = 3
    rig.clock.now += 1.0
    feed.take()
    battery = seen(rig, feed).battery
    assert battery is not None
    assert battery.state == "doubtful"
    assert "3 breaches in a row" in str(battery.reason)


def test_what_the_cloud_declines_counts_as_a_failure_and_a_revision_ends_the_row(rig: Rig) -> None:
    rig.drive()
    (breach,) = [
        row[0]
        for row in rig.state.connection.execute(
            "SELECT message_id FROM outbox WHERE kind = 'breach'"
        )
    ]
    receipt = {
        "schema": 1,
        "vehicle_id": "car-1",
        "message_ids": [breach],
        "declined": [{"message_id": breach, "reason": "a stuck sensor"}],
    }
    rig.agent._receive("twin/v1/car-1/receipt", json.dumps(receipt).encode())
    assert rig.agent.statistics.failures_in_a_row == 1
    rig.agent._receive("twin/v1/car-1/parameters", signed(revision_for(rig.bundle)))
    assert rig.agent.statistics.failures_in_a_row == 0


# ---- over HTTP -------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[LiveServer]:
    made = LiveServer(0, lambda: b'{"schema": 1}')
    made.start()
    yield made
    made.stop()


def answer(server: LiveServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, headers=headers)
    found = connection.getresponse()
    body = found.read()
    connection.close()
    return found.status, body


def test_two_addresses_are_served_and_nothing_else(server: LiveServer) -> None:
    assert answer(server, "/live.json") == (200, b'{"schema": 1}')
    status, page = answer(server, "/")
    assert status == 200
    assert b"<!doctype html>" in page
    assert b"http://" not in page
    assert b"https://" not in page
    for path in ("/live.json?x", "/../etc/passwd", "/favicon.ico", "/live.json/"):
        assert answer(server, path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert answer(server, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "", "::1"])
def test_a_request_for_another_host_is_refused(server: LiveServer, host: str) -> None:
    """A page whose name was made to point here (DNS rebinding) sends its own name."""
    assert answer(server, "/live.json", Host=host.format(port=server.port))[0] == 421
    assert answer(server, "/live.json", Host=f"localhost:{server.port}")[0] == 200


def test_no_other_site_may_read_or_embed_it(server: LiveServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/", headers={"Origin": "https://evil.example"})
    headers = connection.getresponse().headers
    connection.close()
    assert not [name for name in headers if name.lower().startswith("access-control")]
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


def test_only_this_machine_is_listened_to(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def is_dropped(server: LiveServer, head: bytes) -> bool:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30.0) as one:
        one.sendall(head)
        with suppress(ConnectionResetError):
            return one.recv(100) == b""
        return True


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dropped now is not dropped for its slowness."""
    monkeypatch.setattr(live_server, "REQUEST_S", 3600.0)


@pytest.mark.usefixtures("patient")
def test_a_request_that_is_too_long_is_dropped(server: LiveServer) -> None:
    assert is_dropped(server, b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
    assert answer(server, "/live.json")[0] == 200


def test_a_request_that_is_too_slow_is_dropped(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_server, "REQUEST_S", 0.3)
    assert is_dropped(server, b"GET / HTTP/1.1\r\n")


@pytest.mark.usefixtures("patient")
def test_connections_beyond_the_bound_are_closed_and_the_rest_served(server: LiveServer) -> None:
    idle = [
        socket.create_connection(("127.0.0.1", server.port), timeout=10)
        for _ in range(live_server.CONNECTIONS)
    ]
    eventually(lambda: server._free._value == 0, what="all connections taken")
    assert is_dropped(server, b"")
    for one in idle:
        one.close()
    eventually(lambda: server._free._value == live_server.CONNECTIONS, what="all free again")
    assert answer(server, "/live.json")[0] == 200


def test_a_view_that_fails_costs_one_request(server: LiveServer) -> None:
    def fails() -> bytes:
        raise RuntimeError("broken")

    server.look = fails
    with pytest.raises(http.client.RemoteDisconnected):
        answer(server, "/live.json")
    server.look = lambda: b"{}"
    assert answer(server, "/live.json") == (200, b"{}")


# ---- in front of people ----------------------------------------------------------------------


@pytest.fixture
def served(rig: Rig) -> Iterator[LiveServer]:
    feed = feed_of(rig)
    driven(rig, feed, 40)
    made = LiveServer(0, lambda: msgspec.json.encode(seen(rig, feed)))
    made.start()
    yield made
    made.stop()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the page is tested over HTTP only")
def test_a_browser_shows_the_page_under_its_own_policy(served: LiveServer, tmp_path: Path) -> None:
    page = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu",
            f"--user-data-dir={tmp_path}", "--virtual-time-budget=3000", "--dump-dom",
            "--enable-logging=stderr", f"http://127.0.0.1:{served.port}/",
        ],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    for words in ("car-1", "offline, keeping", " ± ", "of health", "learning", "40 samples"):
        assert words in page.stdout
    assert "no answer yet" not in page.stdout
    assert 'id="measured" d="M0.0' in page.stdout
    assert "CONSOLE" not in page.stderr  # no script error, nothing that the policy refused


def of_watch(port: int, folder: Path, *arguments: str) -> list[str]:
    Installation(folder, free_port())
    with (folder / "agent.toml").open("a") as file:
        file.write(f"[live]\nport = {port}\n")
    return [*AGENT, "status", "--watch", *arguments, "--config", str(folder / "agent.toml")]


def test_a_terminal_is_redrawn_and_given_back(served: LiveServer, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100", "LINES": "40"}
    watching = subprocess.Popen(
        of_watch(served.port, tmp_path / "watch"), stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown_bytes = b""

    def has_redrawn() -> bool:
        nonlocal shown_bytes
        if select.select([ours], [], [], 0.05)[0]:
            shown_bytes += os.read(ours, 65536)
        return shown_bytes.count(b"\x1b[H") >= 2

    eventually(has_redrawn, 60.0, "two pictures in the terminal")
    watching.send_signal(signal.SIGINT)
    end_s = time.monotonic() + 10
    while time.monotonic() < end_s:
        try:
            shown_bytes += os.read(ours, 65536)
        except OSError:
            break
    assert watching.wait(10) == 0
    os.close(ours)
    text = shown_bytes.decode()
    assert text.startswith("\x1b[?1049h\x1b[?25l")
    assert text.endswith("\x1b[?25h\x1b[?1049l")
    for words in ("car-1", "40 samples", "V measured", "estimate  learning: no", "revision  0"):
        assert words in text


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_without_a_terminal_there_is_one_line_a_second(
    served: LiveServer, tmp_path: Path, arguments: list[str]
) -> None:
    command = of_watch(served.port, tmp_path / "watch", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline() for _ in range(2)]
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(10) == 0
    for text in lines:
        if arguments:
            assert json.loads(text)["trip"]["samples"] == 40
        else:
            assert "V, predicted" in text
            assert "\x1b" not in text


def test_watching_says_what_is_missing(tmp_path: Path) -> None:
    alone = Installation(tmp_path / "off", free_port())
    off = alone.run("status", "--watch")
    assert off.returncode == 1
    assert "Write [live] into it" in off.stderr
    command = of_watch(free_port(), tmp_path / "nobody")
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True) as watching:
        assert watching.stderr is not None
        assert "does the agent run? Trying on." in watching.stderr.readline()
        watching.send_signal(signal.SIGTERM)
        assert watching.wait(10) == 0


def test_the_real_agent_serves_its_trip(tmp_path: Path) -> None:
    made, port = Installation(tmp_path, free_port()), free_port()
    with made.config.open("a") as file:
        file.write(f"[live]\nport = {port}\n")
    command = [*AGENT, "run", "--config", str(made.config)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=ENVIRONMENT, text=True) as running:
        assert running.stdin is not None
        for sample in drive(made.bundle, count=30):
            running.stdin.write(json.dumps(cells(sample)) + "\n")
        running.stdin.flush()
        view: dict[str, Any] = {}

        def has_trip() -> bool:
            nonlocal view
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/live.json")
                view = json.loads(connection.getresponse().read())
                connection.close()
            except OSError:
                return False
            return bool(view["trip"]) and view["trip"]["samples"] == 30

        eventually(has_trip, 60.0, "the trip in the live view")
        assert view["battery"]["health"]["unit"] == "1"
        running.stdin.close()
        assert running.wait(30) == 0


def test_a_port_that_is_taken_is_a_warning(
    rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Installation(tmp_path / "taken", free_port())
    with socket.create_server(("127.0.0.1", 0)) as other:
        with made.config.open("a") as file:
            file.write(f"[live]\nport = {other.getsockname()[1]}\n")
        with live_view(rig.agent, load_config(made.config), clock_of(rig)) as look:
            look()
    assert "no_live_view" in caplog.text


# ---- in words --------------------------------------------------------------------------------


def test_every_line_fits_a_terminal_and_says_what_stands_outside_the_band(rig: Rig) -> None:
    feed = feed_of(rig)
    driven(rig, feed, 40)
    last = list(drive(rig.bundle, count=41))[40]
    rig.agent.take(replace(last, time_s=last.time_s + 60, voltage_v=1.5))
    rig.clock.now += 1.0
    feed.take()
    view = seen(rig, feed)
    text = screen(view)
    assert max(map(len, text)) <= 100
    assert any("OUTSIDE the band" in words for words in text)
    assert "1.500 V, predicted" in line(view)


def test_a_view_without_a_trip_or_a_battery_is_told_as_such() -> None:
    bare = LiveView(
        at=0.0, vehicle_id="car-1", agent_version="1", bundle="0" * 64, revision=0,
        is_connected=True, outbox_messages=0, counters={}, threshold_v=0.05,
    )  # fmt: skip
    assert "trip      none is running" in screen(bare)
    assert "battery   not known" in screen(bare)
    assert "no trip" in line(bare)


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], "-"), ([1.0], "_"), ([1.0, 1.0], "__"), ([0.0, 7.0], "_@"), (list(range(8)), "_.-=+*#@")],
)
def test_a_sparkline_is_as_high_as_its_values(values: list[float], drawn: str) -> None:
    assert sparkline(values, PLAIN_BARS) == drawn
    assert len(sparkline(values * 200, PLAIN_BARS)) <= 60
