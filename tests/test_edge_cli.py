"""The `edge-agent` command as a user meets it: exit codes, sentences, what stays on the disk."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from common.bundle import Bundle, load_bundle
from common.messages import Receipt, Status, TripSummary, decode
from demo.broker import PrivateBroker
from demo.loop import free_port
from edge_agent.samples import Sample
from tests.conftest import Connect
from tests.support_edge import KEY, VEHICLE, drive, write_bundle
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
DBC = Path(__file__).resolve().parents[1] / "firmware_sim" / "can" / "bms.dbc"
AGENT = [sys.executable, "-m", "edge_agent"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def said(stderr: str) -> str:
    """Without the line that some processors make the TFLite runtime write when it starts."""
    lines = stderr.splitlines(keepends=True)
    return "".join(line for line in lines if "TensorFlow Lite" not in line)


class Installation:
    """A folder with a configuration, its bundle, its key, and a table of two trips."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.config = folder / "agent.toml"
        self.bundle: Bundle = load_bundle(write_bundle(folder / "bundle"))
        (folder / "trusted.pem").write_bytes(
            KEY.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        self.config.write_text(
            f'vehicle_id = "{VEHICLE}"\nbundle = "bundle"\nstate = "state.db"\n'
            f'trusted_keys = ["trusted.pem"]\n[mqtt]\nport = {port}\n'
        )
        self.table = folder / "trips.csv"
        with self.table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["trip_id", "time_s", "odometer", "distance_km", "load_kg", "voltage_v"]
            )
            for trip_id, gain in (("trip-1", 1.1), ("trip-2", 1.0)):
                for sample in drive(self.bundle, trip_id, gain=gain, count=20):
                    writer.writerow(cells(sample).values())

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AGENT, *arguments, "--config", str(self.config)],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            **options,
        )

    def waiting(self) -> list[str]:
        """Kinds of the messages in the outbox, in order."""
        with closing(sqlite3.connect(f"file:{self.folder}/state.db?mode=ro", uri=True)) as db:
            return [row[0] for row in db.execute("SELECT kind FROM outbox ORDER BY seq")]

    def summaries(self) -> list[TripSummary]:
        query = "SELECT payload FROM outbox WHERE kind = 'trip' ORDER BY seq"
        with closing(sqlite3.connect(f"file:{self.folder}/state.db?mode=ro", uri=True)) as db:
            return [decode(row[0], TripSummary) for row in db.execute(query)]


def cells(sample: Sample) -> dict[str, Any]:
    return {
        "trip_id": sample.trip_id,
        "time_s": sample.time_s,
        "odometer": sample.odometer,
        **sample.signals,
        "voltage_v": sample.voltage_v,
    }


@pytest.fixture
def alone(tmp_path: Path) -> Installation:
    """An installation whose broker does not answer."""
    return Installation(tmp_path, free_port())


@pytest.mark.parametrize("command", [[], ["run"], ["replay"], ["status"], ["check"], ["enroll"]])
def test_help_explains_itself_with_examples(command: list[str]) -> None:
    shown = subprocess.run(
        [*AGENT, *command, "--help"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0
    assert "edge-agent replay trips.csv --config agent.toml" in shown.stdout
    assert "exit codes: 0 done, 1 failed, 2 usage, 5" in shown.stdout


@pytest.mark.parametrize("command", [["run"], ["replay", "trips.csv"], ["status"], ["check"]])
def test_a_missing_configuration_is_one_sentence(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "none.toml"
    found = subprocess.run(
        [*AGENT, *command, "--config", str(path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr == (
        f"edge-agent: The configuration {path} cannot be used: "
        "it cannot be read (No such file or directory). Correct it and start again.\n"
    )


@pytest.mark.parametrize("arguments", [[], ["fly"], ["replay"], ["status", "--colour"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    found = subprocess.run([*AGENT, *arguments], env=ENVIRONMENT, capture_output=True, check=False)
    assert found.returncode == 2


def broken_bundle(at: Installation) -> None:
    (at.folder / "bundle" / "voltage_model.tflite").write_bytes(b"x")


def missing_key(at: Installation) -> None:
    (at.folder / "trusted.pem").unlink()


def broken_key(at: Installation) -> None:
    (at.folder / "trusted.pem").write_bytes(b"x")


def missing_table(at: Installation) -> None:
    at.table.unlink()


def other_table(at: Installation) -> None:
    at.table.write_text("a,b\n1,2\n")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (broken_bundle, "SHA-256"),
        (missing_key, "twin-cloud keys create"),
        (broken_key, "no readable public key"),
        (missing_table, "No such file"),
        (other_table, "no column time_s, odometer, voltage_v, distance_km, load_kg"),
    ],
)
def test_what_is_wrong_with_an_installation_is_one_sentence(
    alone: Installation, fault: Callable[[Installation], None], says: str
) -> None:
    fault(alone)
    found = alone.run("replay", str(alone.table))
    assert found.returncode == 1
    assert says in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("fault", [broken_bundle, missing_key, broken_key])
def test_a_check_finds_what_a_start_would_stumble_over(
    alone: Installation, fault: Callable[[Installation], None]
) -> None:
    good = alone.run("check")
    assert (good.returncode, said(good.stderr)) == (0, "")
    assert f"bundle    {alone.bundle.sha256[:16]}" in good.stdout
    fault(alone)
    bad, started = alone.run("check"), alone.run("replay", str(alone.table))
    assert bad.returncode == 1
    assert said(bad.stderr) == said(started.stderr)
    assert not (alone.folder / "state.db").exists()


CAN_SOURCE = """
[source]
kind = "can"
[source.can]
dbc = "bms.dbc"
[source.can.signals]
voltage_v = { signal = "PackVoltage" }
distance_km = { signal = "Speed" }
load_kg = { signal = "Load" }
odometer = { signal = "Odometer" }
"""


def test_a_check_looks_at_the_source_without_opening_a_bus(alone: Installation) -> None:
    settings = alone.config.read_text()
    shutil.copy(DBC, alone.folder / "bms.dbc")
    alone.config.write_text(settings + CAN_SOURCE)
    good = alone.run("check")
    assert (good.returncode, said(good.stderr)) == (0, "")
    assert "socketcan can0, read with bms.dbc (not opened)" in good.stdout
    alone.config.write_text(settings + CAN_SOURCE.replace('"Load"', '"Cargo"'))
    bad = alone.run("check")
    assert bad.returncode == 1
    assert "Cargo" in said(bad.stderr)


def test_a_check_says_when_the_table_lacks_a_column(alone: Installation) -> None:
    settings = alone.config.read_text()
    alone.config.write_text(settings + '[source]\nkind = "file"\npath = "trips.csv"\n')
    assert "source    trips.csv" in alone.run("check").stdout
    alone.table.write_text("time_s,odometer,voltage_v\n")
    bad = alone.run("check")
    assert bad.returncode == 1
    assert "distance_km" in said(bad.stderr)


def test_without_a_broker_a_replay_keeps_its_trips_and_waiting_for_the_cloud_is_exit_code_5(
    alone: Installation,
) -> None:
    found = alone.run("replay", str(alone.table), "--json")
    assert found.returncode == 0
    assert said(found.stderr).count("\n") == 1
    assert f"the broker at 127.0.0.1:{alone.port} cannot be reached" in found.stderr
    facts = json.loads(found.stdout)
    assert (facts["trips"], facts["breaches"], facts["revision"]) == (2, 1, 0)
    assert alone.waiting() == ["breach", "trip", "trip"]
    started = time.monotonic()
    waited = alone.run("replay", str(alone.table), "--wait-for-cloud", "0.5")
    assert time.monotonic() - started < 30
    assert waited.returncode == 5
    assert f"The broker at 127.0.0.1:{alone.port} cannot be reached" in waited.stderr
    assert alone.waiting() == ["breach", "trip", "trip"]


def test_with_a_broker_and_no_cloud_waiting_is_exit_code_5_and_the_trip_stays(
    tmp_path: Path, mosquitto: PrivateBroker
) -> None:
    at = Installation(tmp_path, mosquitto.port)
    found = at.run("replay", str(at.table), "--wait-for-cloud", "0.5")
    assert found.returncode == 5
    assert "1 breach(es) got no answer within 0.5 s" in found.stderr
    assert at.waiting() == ["breach", "trip"]


def test_a_replay_ends_well_when_the_cloud_has_answered_everything(
    tmp_path: Path, mosquitto: PrivateBroker, connect: Connect
) -> None:
    at = Installation(tmp_path, mosquitto.port)
    cloud = connect(mosquitto, "cloud")
    cloud.subscribe("twin/v1/+/trip", "twin/v1/+/breach", "twin/v1/+/status")
    replay = subprocess.Popen(
        [*AGENT, "replay", str(at.table), "--wait-for-cloud", "20", "--config", str(at.config)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        text=True,
    )
    answered = 0
    while replay.poll() is None:
        for topic, payload in cloud.received[answered:]:
            answered += 1
            if not topic.endswith("status"):
                number = json.loads(payload)["message_id"]
                declined = [{"message_id": number, "reason": "a test"}]
                answer = {"schema": 1, "vehicle_id": VEHICLE, "message_ids": [number]}
                if topic.endswith("breach"):
                    answer["declined"] = declined
                decode(json.dumps(answer).encode(), Receipt)
                cloud.publish(f"twin/v1/{VEHICLE}/receipt", json.dumps(answer).encode())
        time.sleep(0.01)
    assert replay.returncode == 0
    assert "trips" in replay.communicate()[0]
    assert at.waiting() == []

    def said() -> list[bool]:
        payloads = [p for name, p in cloud.received if name.endswith("status")]
        return [decode(payload, Status).online for payload in payloads]

    # The broker may hand it on after the agent has ended.
    eventually(lambda: said()[-1:] == [False])
    assert said()[0]


def live(at: Installation) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*AGENT, "run", "--config", str(at.config)],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
    )


def feed_half_a_trip(
    agent: subprocess.Popen[str],
    at: Installation,
    trip_id: str = "trip-1",
    part: int = 0,
    count: int = 400,
) -> None:
    """Fifteen samples of a `part`, then a line whose refusal tells that they were taken."""
    assert agent.stdin is not None
    assert agent.stderr is not None
    for sample in list(drive(at.bundle, trip_id, count=count))[15 * part : 15 * part + 15]:
        agent.stdin.write(json.dumps(cells(sample)) + "\n")
    agent.stdin.write("\udcff stray bytes\n")
    agent.stdin.flush()
    while "refused_sample" not in (line := agent.stderr.readline()):
        assert line, "the agent ended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_trip_survives_a_stop_of_the_agent_in_its_middle(
    alone: Installation, number: int
) -> None:
    config = alone.config.read_text()
    alone.config.write_text(config + "[limits]\ncheckpoint_s = 1e-9\n")
    with live(alone) as agent:
        feed_half_a_trip(agent, alone)
        agent.send_signal(number)
        agent.wait(30)
        assert agent.stderr is not None
        assert "Traceback" not in agent.stderr.read()
    assert alone.summaries() == []
    with live(alone) as agent:
        feed_half_a_trip(agent, alone, part=1)
        assert agent.stdin is not None
        agent.stdin.close()
        assert agent.wait(30) == 0
    (summary,) = alone.summaries()
    assert (summary.trip_id, summary.samples, summary.partial) == ("trip-1", 30, False)
    assert alone.run("status", "--json").stdout.count('"trips_continued": 1') == 1


def test_a_trip_that_is_another_one_after_the_restart_is_closed_as_partial(
    alone: Installation,
) -> None:
    with live(alone) as agent:
        feed_half_a_trip(agent, alone)
        agent.terminate()
        assert agent.wait(30) == 0
    with live(alone) as agent:
        feed_half_a_trip(agent, alone, trip_id="trip-2")
        assert agent.stdin is not None
        agent.stdin.close()
        assert agent.wait(30) == 0
    found = [(one.trip_id, one.samples, one.partial) for one in alone.summaries()]
    assert found == [("trip-1", 15, True), ("trip-2", 15, False)]
    assert '"partial_trips": 1' in alone.run("status", "--json").stdout


def test_the_end_of_the_live_source_closes_the_trip_as_whole(alone: Installation) -> None:
    with live(alone) as agent:
        feed_half_a_trip(agent, alone)
        assert agent.stdin is not None
        agent.stdin.close()
        assert agent.wait(30) == 0
    (summary,) = alone.summaries()
    assert (summary.samples, summary.partial) == (15, False)


def test_a_second_agent_on_the_same_state_is_told_so(alone: Installation) -> None:
    with live(alone) as agent:
        feed_half_a_trip(agent, alone)
        second = alone.run("replay", str(alone.table))
        assert (second.returncode, "Another agent is running" in second.stderr) == (1, True)
        agent.kill()


def test_the_status_shows_what_waits_and_what_was_refused(alone: Installation) -> None:
    early = alone.run("status")
    assert early.returncode == 1
    assert "Has the agent run yet?" in early.stderr
    with live(alone) as agent:
        feed_half_a_trip(agent, alone, count=20)
        during = json.loads(alone.run("status", "--json").stdout)
        assert (during["outbox_messages"], during["counters"]) == (0, {"refused_sample": 1})
        assert agent.stdin is not None
        agent.stdin.close()
    facts = json.loads(alone.run("status", "--json").stdout)
    assert facts["vehicle_id"] == VEHICLE
    assert facts["bundle"] == alone.bundle.sha256
    assert (facts["revision"], facts["theta"]) == (0, None)
    assert (facts["outbox_messages"], facts["breaches_awaiting_an_answer"]) == (2, 1)
    assert facts["outbox_bytes"] > 500
    assert facts["last_refused"][0]["kind"] == "sample"
    plain = alone.run("status")
    assert plain.returncode == 0
    assert "outbox_messages              2" in plain.stdout
