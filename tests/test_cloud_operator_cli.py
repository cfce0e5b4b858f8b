"""`twin-cloud cohort`, `policy`, `approve`, `alarms`, … over the API of a running service."""

from __future__ import annotations

import ipaddress
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.alerts.sweep import AlarmSweep
from cloud.api.access import Context
from cloud.policy import Policy
from cloud.store import events, policies
from cloud.store.alert_tables import Webhook
from cloud.store.tables import Vehicle
from demo.loop import free_port
from tests.cloud_doubles import NOW, Insides, serving, write_bundle
from tests.support_command_line import twin_cloud
from tests.waiting import eventually

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@dataclass
class Desk:
    """A service with the cars `a` and `b`, and somebody who types."""

    inside: Insides
    server: str
    type: Callable[..., tuple[int, str, str]]

    def json(self, *words: object) -> Any:
        code, out, err = self.type(*words, "--json", "--server", self.server)
        assert code == 0, err
        return json.loads(out)

    def end(self, *words: object) -> tuple[int, str, str]:
        return self.type(*words, "--server", self.server)


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path)
    made.take(made.car("a").status(), made.car("b").status())
    yield made
    made.store.close()


def context_of(inside: Insides) -> Context:
    clock = lambda: inside.now  # noqa: E731
    return Context(
        inside.store, inside.catalogue, clock, {}, inside.worker.wake, webhook_networks=LOOPBACK
    )


@pytest.fixture
def desk(
    inside: Insides, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    with serving(context_of(inside)) as client:
        typed = lambda *words: twin_cloud(monkeypatch, capsys, *words)  # noqa: E731
        yield Desk(inside, str(client.base_url), typed)


def test_vehicles_are_assigned_to_a_cohort_and_tried_before(desk: Desk) -> None:
    words = ("cohort", "assign", "winter", "a", "b", "--reason", "cold")
    code, out, err = desk.end(*words, "--dry-run")
    assert (code, "winter" in out, "Dry run" in err) == (0, True, True)
    assert [one["name"] for one in desk.json("cohort", "list")] == ["default"]
    assert desk.json(*words) == {"cohort": "winter", "assigned": 2, "already": 0}
    assert [one["name"] for one in desk.json("cohort", "list")] == ["winter"]
    code, _, err = desk.end("cohort", "assign", "winter", "a", "nobody", "--reason", "cold")
    assert (code, "nobody" in err) == (3, True)
    assert desk.end("cohort", "assign", "winter", "a")[0] == 2  # without a reason


def test_a_policy_is_what_held_with_the_settings_changed(desk: Desk) -> None:
    change = ("policy", "set", "default")
    desk.json(*change, "calibration=approval", "refuse_above_error_v=0.2", "--reason", "pilot")
    changed = desk.json(*change, "health_limit=0.7", "refuse_above_error_v=", "--reason", "old")
    wanted = ("approval", 0.7, None)
    for shown in (changed, desk.json("policy", "show", "default")):
        found = shown["policy"]
        assert (
            found["calibration"], found["health_limit"], found["refuse_above_error_v"],
        ) == wanted  # fmt: skip
    history = desk.json("policy", "history", "default")
    assert [(one["version"], one["why"]) for one in history] == [(2, "old"), (1, "pilot")]
    for wrong in ("health_limit=5", "colour=red", "colour"):
        code, out, err = desk.end(*change, wrong, "--reason", "?")
        assert (code, out, wrong.split("=")[0] in err) == (2, "", True)


def test_a_revision_that_waits_is_approved_or_rejected_once(desk: Desk) -> None:
    inside = desk.inside
    with inside.store.write() as db:
        pilot = Policy(calibration="approval")
        policies.add(db, "default", pilot, actor="desk", why="pilot", now=NOW)
    for name in ("a", "b"):
        inside.take(inside.car(name).breach(5))
    inside.work()
    waiting = desk.json("approvals")
    assert [(one["vehicle_id"], one["revision"]) for one in waiting] == [("b", 1), ("a", 1)]
    code, out, _ = desk.end("approve", "a", 1, "--reason", "plausible")
    assert (code, "approved" in out) == (0, True)
    inside.work()
    assert inside.publisher.numbers == [1]
    assert desk.json("reject", "b", 1, "--reason", "broken")["approval"] == "rejected"
    code, _, err = desk.end("approve", "b", 1, "--reason", "after all")
    assert (code, "rejected" in err) == (4, True)
    assert desk.json("approvals") == []


def test_orders_are_followed_to_their_revision(desk: Desk) -> None:
    assert desk.end("orders", "--id", "roll_back-7")[0] == 3
    inside = desk.inside
    for trip in (2, 3):
        inside.take(inside.car("a").breach(trip))
        inside.work()
    for order, told in (("recalibrate", {"from": 1}), ("pin", {"to": 1})):
        path = f"{desk.server}/api/v1/vehicles/a/{order}"
        assert httpx.post(path, json={**told, "why": "a look"}).status_code == 202
        inside.work()
    found = {one["kind"]: one for one in desk.json("orders", "--filter", "vehicle_id=a")}
    assert {kind: one["state"] for kind, one in found.items()} == {
        "recalibration": "done", "pin": "done",
    }  # fmt: skip
    for one in found.values():
        assert desk.json("orders", "--id", one["id"]) == one


def test_an_alarm_is_seen_acknowledged_and_watched(desk: Desk) -> None:
    with desk.inside.store.write() as db:
        db.get(Vehicle, "b").estimate_state = "doubtful"  # type: ignore[union-attr]
    AlarmSweep(desk.inside.store).turn(NOW)
    [alarm] = desk.json("alarms", "--filter", "state=active")
    assert (alarm["vehicle_id"], alarm["acknowledged"]) == ("b", False)
    words = ("alarms", "acknowledge", alarm["id"], "--reason", "seen", "--assignee", "workshop")
    assert desk.json(*words)["assignee"] == "workshop"
    assert desk.json("alarms", "--filter", "acknowledged=false") == []


def test_a_webhook_is_made_with_its_secret_shown_once_and_removed(desk: Desk) -> None:
    add = ("webhooks", "add", "http://127.0.0.1:9/hook", "--kind", "alarm.", "--reason", "on-call")
    assert desk.end(*add, "--dry-run")[:2] == (0, "")
    code, out, _ = desk.end(*add)
    [row] = desk.inside.table(Webhook)
    assert (code, out) == (0, f"{row.secret}\n")
    [shown] = desk.json("webhooks", "list")
    assert (shown["kinds"], "secret" in shown) == (["alarm."], False)
    assert desk.end("webhooks", "remove", row.id, "--reason", "moved", "--dry-run")[0] == 0
    assert len(desk.json("webhooks", "list")) == 1
    assert desk.end("webhooks", "remove", row.id, "--reason", "moved")[0] == 0
    assert desk.end("webhooks", "remove", row.id, "--reason", "moved")[0] == 3
    code, _, err = desk.end("webhooks", "add", "https://10.0.0.1/", "--reason", "?")
    assert (code, "body.url" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "first"),
    [(("events", "--follow", "--filter", "kind=alarm."), ""), (("alarms", "--watch"), "nothing\n")],
)
def test_events_are_followed_over_a_restart_of_the_service_until_ctrl_c(
    inside: Insides, tmp_path: Path, words: tuple[str, ...], first: str
) -> None:
    port, out, err = free_port(), tmp_path / "out", tmp_path / "err"
    command = [sys.executable, "-m", "cloud", *words, "--server", f"http://127.0.0.1:{port}"]

    def happen(kind: str) -> None:
        with inside.store.write() as db:
            events.add(db, kind, NOW, vehicle_id="a", detail={"why": "x"})

    def seen() -> list[str]:
        return [line.split()[2] for line in out.read_text().removeprefix(first).splitlines()]

    happen("alarm.old")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        with serving(context_of(inside), port=port):
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr)

            def is_following() -> bool:
                happen("alarm.one")
                return "alarm.one" in seen()

            eventually(is_following, 60.0, "the first event")
        happen("alarm.meanwhile")
        eventually(lambda: "Trying again" in err.read_text(), 30.0, "the interruption")
        with serving(context_of(inside), port=port):
            happen("alarm.two")
            eventually(lambda: "alarm.two" in seen(), 30.0, "what came after")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
    assert (seen()[-2:], seen().count("alarm.old")) == (["alarm.meanwhile", "alarm.two"], 0)


def test_nothing_to_follow_is_exit_code_5_and_a_refusal_2(desk: Desk) -> None:
    assert desk.type("events", "--follow", "--server", "http://127.0.0.1:9")[0] == 5
    assert desk.end("events", "--follow", "--filter", "colour=red")[0] == 2
