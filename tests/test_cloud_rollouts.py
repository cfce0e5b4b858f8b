"""Staged roll-outs over the service's insides: who is ordered for, what halts, what goes back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import select

from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.calibration.revising import Author
from cloud.intake.interpretation import Delivery
from cloud.location import PostgresUrl
from cloud.push.releases import Releases
from cloud.rollout.conductor import LOOK_S, Rollouts
from cloud.rollout.plan import place
from cloud.store.rollout_tables import RolloutMember
from cloud.store.tables import Release, Vehicle
from common.bundle import load_bundle
from common.messages import encode, message_id
from common.release import BundleAck
from common.topics import topic
from tests.cloud_doubles import Car, Insides, problem, serving, write_bundle
from tests.test_edge_cli import ENVIRONMENT

ROLLOUTS = "/api/v1/rollouts"
CARS = [f"car-{number:02d}" for number in range(40)]
NAME = "winter"
FIRST = {car for car in CARS if place(NAME, car) < 20}


class Fleet(Insides):
    """Forty thin vehicles on one bundle, and another one for them."""

    def __init__(self, folder: Path, database: PostgresUrl | None) -> None:
        super().__init__(folder, write_bundle(folder / "bundle"), database)
        self.new = load_bundle(write_bundle(folder / "new", "next"))
        self.catalogue.add(self.new)
        self.take(*(self.car(car).status() for car in CARS))
        self.take(*(self.car(car).trip(1, error_v=0.01) for car in CARS))

    def start(self) -> None:
        super().start()
        clock = lambda: self.now  # noqa: E731
        author = Author(self.key, "0.1.0")
        self.worker._releases = Releases(self.store, self.catalogue, author, self.publisher, clock)
        self.worker._rollouts = Rollouts(self.store, self.catalogue, clock)

    def pass_time(self, seconds: float = LOOK_S + 1) -> None:
        self.now += seconds
        self.worker.wake()
        self.work()

    def releases(self, bundle: str | None = None) -> dict[str, Release]:
        """By vehicle the newest one."""
        with self.store.read() as db:
            rows = db.exec(select(Release).order_by(Release.number)).all()  # type: ignore[arg-type]
        return {r.vehicle_id: r for r in rows if bundle in {None, r.bundle}}

    @property
    def ordered(self) -> set[str]:
        return set(self.releases(self.new.sha256))

    def say(self, state: Any, *cars: str, bundle: str | None = None) -> None:
        """These say so of their newest release."""
        found = self.releases()
        for car in cars:
            row = found[car]
            ack = BundleAck(
                message_id=message_id(car, "", f"{row.number}-{state}"),
                vehicle_id=car,
                release=row.number or 0,
                bundle=row.bundle,
                announcement_hash=row.hash or "",
                state=state,
                reason="" if state == "installed" else "damaged",
                decided_at=self.now,
            )
            self.take(Delivery(topic(car, "bundle_ack"), encode(ack), mid=1))
            if state == "installed":
                self.take(Car(car, load_bundle(self.bundle_path(row.bundle))).status())

    def bundle_path(self, sha256: str) -> Path:
        return self.new.path if sha256 == self.new.sha256 else self.bundle.path


@pytest.fixture
def fleet(tmp_path: Path, database: PostgresUrl | None) -> Iterator[Fleet]:
    made = Fleet(tmp_path, database)
    yield made
    made.store.close()


def context_of(fleet: Fleet) -> Context:
    return Context(fleet.store, fleet.catalogue, lambda: fleet.now, {}, fleet.worker.wake)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[httpx.Client]:
    with serving(context_of(fleet)) as made:
        yield made


def plan(fleet: Fleet, **changes: Any) -> dict[str, Any]:
    rules = {"min_answers": 3, "min_trips": 3, "answers_within_s": 5000.0}
    return {
        "name": NAME, "bundle": fleet.new.sha256, "stages_percent": [20, 100], "soak_s": 100.0,
        "rules": rules, "why": "cold trips", "by": "lab",
    } | changes  # fmt: skip


def begin(fleet: Fleet, client: httpx.Client, **changes: Any) -> None:
    answer = client.post(ROLLOUTS, json=plan(fleet, **changes))
    assert answer.status_code == 201, answer.text
    fleet.work()


def shown(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"{ROLLOUTS}/{NAME}").json()
    return found


def tell(client: httpx.Client, verb: str) -> httpx.Response:
    return client.post(f"{ROLLOUTS}/{NAME}/{verb}", json={"why": f"{verb}!", "by": "desk"})


def test_it_goes_stage_by_stage_until_it_is_finished(fleet: Fleet, client: httpx.Client) -> None:
    begin(fleet, client)
    assert fleet.ordered == FIRST
    fleet.pass_time(200)
    assert fleet.ordered == FIRST  # soaked, but nobody has answered
    fleet.say("installed", *FIRST)
    fleet.pass_time()
    assert fleet.ordered == set(CARS)
    assert shown(client)["stages"][0]["answers"] == {"installed": len(FIRST)}
    fleet.say("installed", *(set(CARS) - FIRST))
    fleet.pass_time()
    assert shown(client)["state"] == "soaking"
    fleet.pass_time(100)
    found = shown(client)
    assert (found["state"], found["stage"]) == ("finished", 2)
    assert [one["planned"] for one in found["stages"]] == [len(FIRST), 40 - len(FIRST)]
    assert [one["ordered"] for one in found["stages"]] == [len(FIRST), 40 - len(FIRST)]


def test_refusals_halt_it_and_only_a_person_lets_it_go_on(
    fleet: Fleet, client: httpx.Client
) -> None:
    begin(fleet, client)
    one, *others = sorted(FIRST)
    fleet.say("refused", one)
    fleet.say("installed", *others)
    fleet.pass_time()
    found = shown(client)
    assert (found["state"], found["halt"], found["changed_by"]) == ("halted", "refusals", None)
    assert f"1 of {len(FIRST)} vehicles" in found["why"]
    for _ in range(3):
        fleet.pass_time(10_000)
    assert fleet.ordered == FIRST
    [event] = client.get("/api/v1/events", params={"kind": "rollout.halted"}).json()["items"]
    assert event["detail"]["rollout"] == NAME
    assert tell(client, "resume").json()["state"] == "running"
    fleet.work()
    fleet.pass_time()
    assert shown(client)["state"] == "soaking"
    fleet.pass_time(101)
    assert fleet.ordered == set(CARS)
    assert shown(client)["changed_by"] is None
    kinds = client.get("/api/v1/audit", params={"kind": "rollout.running"}).json()["items"]
    assert {(e["actor"], e["detail"]["why"]) for e in kinds} == {
        ("lab", "cold trips"), ("desk", "resume!"),
    }  # fmt: skip


def test_larger_errors_halt_it(fleet: Fleet, client: httpx.Client) -> None:
    begin(fleet, client)
    fleet.say("installed", *FIRST)
    fleet.now += 1
    for car in sorted(FIRST):
        fleet.take(Car(car, fleet.new).trip(2, error_v=0.05))
    fleet.pass_time()
    found = shown(client)
    assert (found["state"], found["halt"]) == ("halted", "errors")
    assert found["trips"] == found["old_trips"] == len(FIRST)
    assert found["error_v"] == pytest.approx(0.05)
    assert found["old_error_v"] == pytest.approx(0.01)


def test_silence_halts_it(fleet: Fleet, client: httpx.Client) -> None:
    begin(fleet, client)
    fleet.pass_time(5001)
    assert shown(client)["halt"] == "silence"


def test_what_took_it_goes_back_and_what_refused_is_left_alone(
    fleet: Fleet, client: httpx.Client
) -> None:
    begin(fleet, client)
    refuser, *takers = sorted(FIRST)
    fleet.say("installed", *takers[:-1])
    fleet.say("refused", refuser)
    answer = tell(client, "roll-back")
    assert (answer.status_code, answer.json()["state"]) == (202, "rolling_back")
    fleet.work()
    found = fleet.releases()
    assert {found[car].bundle for car in takers} == {fleet.bundle.sha256}
    assert {found[car].number for car in takers} == {2}
    assert found[refuser].bundle == fleet.new.sha256
    fleet.say("installed", *takers)
    assert (shown(client)["told_back"], shown(client)["back"]) == (len(takers), len(takers))
    assert shown(client)["state"] == "rolled_back"
    fleet.pass_time(10_000)
    assert set(found) == FIRST
    problem(tell(client, "resume"), 409)


def test_it_is_paused_resumed_and_cancelled(fleet: Fleet, client: httpx.Client) -> None:
    begin(fleet, client)
    assert tell(client, "pause").json()["state"] == "paused"
    fleet.say("installed", *FIRST)
    fleet.pass_time(1000)
    problem(tell(client, "pause"), 409)
    assert fleet.ordered == FIRST
    assert tell(client, "resume").json()["state"] == "running"
    assert tell(client, "cancel").json()["changed_by"] == "desk"
    fleet.pass_time(1000)
    assert fleet.ordered == FIRST
    problem(tell(client, "resume"), 409)


def test_a_dry_run_counts_each_stage_and_begins_nothing(fleet: Fleet, client: httpx.Client) -> None:
    answer = client.post(ROLLOUTS, params={"dry_run": True}, json=plan(fleet))
    planned = [one["planned"] for one in answer.json()["stages"]]
    assert planned == [len(FIRST), 40 - len(FIRST)]
    fleet.work()
    assert not fleet.ordered
    problem(client.get(f"{ROLLOUTS}/{NAME}"), 404)


def test_a_cohort_alone_is_rolled_out_to(fleet: Fleet, client: httpx.Client) -> None:
    north = set(CARS[:10])
    with fleet.store.write() as db:
        for car in north:
            vehicle = db.get(Vehicle, car)
            assert vehicle is not None
            vehicle.cohort = "north"
    begin(fleet, client, cohorts=["north"], stages_percent=[100])
    assert fleet.ordered == north
    norse, stranger = (Actor(n, "admin", frozenset({n})) for n in ("north", "south"))
    with serving(context_of(fleet), norse) as mine:
        assert [one["name"] for one in mine.get(ROLLOUTS).json()["items"]] == [NAME]
        problem(mine.post(ROLLOUTS, json=plan(fleet, name="all")), 403)
    with serving(context_of(fleet), stranger) as foreign:
        assert foreign.get(ROLLOUTS).json()["items"] == []
        problem(tell(foreign, "pause"), 404)


def test_what_cannot_begin_is_refused_with_the_reason(fleet: Fleet, client: httpx.Client) -> None:
    begin(fleet, client)
    for changes, status, told in (
        ({}, 409, "of that name"),
        ({"name": "other"}, 409, "same vehicles"),
        ({"name": "tiny", "stages_percent": [1e-6, 100]}, 409, "none of the vehicles"),
        ({"name": "falls", "stages_percent": [50, 10]}, 422, "larger"),
        ({"name": "x", "bundle": "0" * 64}, 404, "no bundle"),
        ({"name": "x", "rules": {"refused_share": 2}}, 422, "refused_share"),
    ):
        found = problem(client.post(ROLLOUTS, json=plan(fleet, **changes)), status)
        assert told in found["detail"]


def test_two_workers_order_once_for_a_vehicle(fleet: Fleet, client: httpx.Client) -> None:
    assert client.post(ROLLOUTS, json=plan(fleet)).status_code == 201
    for _ in range(3):
        Rollouts(fleet.store, fleet.catalogue, lambda: fleet.now).turn()
    fleet.work()
    assert len(fleet.table(Release)) == len(fleet.table(RolloutMember)) == len(FIRST)


def test_the_commands_start_show_and_hold_it(fleet: Fleet, client: httpx.Client) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cloud", "rollout", *arguments],
            env={**ENVIRONMENT, "TWIN_SERVER": str(client.base_url)},
            capture_output=True,
            text=True,
            check=False,
        )

    wanted = ["start", NAME, "--bundle", fleet.new.sha256, "--stage", "20", "--stage", "100"]
    wanted += ["--reason", "cold", "--rule", "error_factor=none", "--rule", "min_answers=3"]
    dry = json.loads(command(*wanted, "--dry-run", "--json").stdout)
    assert dry["stages"][0]["planned"] == len(FIRST)
    assert dry["rules"]["error_factor"] is None
    assert command(*wanted).returncode == 0
    assert command(*wanted).returncode == 4
    assert command("start", NAME, "--bundle", "x", "--reason", "y").returncode == 2
    assert command("pause", NAME, "--reason", "wait").returncode == 0
    assert json.loads(command("show", NAME, "--json").stdout)["state"] == "paused"
    assert json.loads(command("list", "--json").stdout)[0]["why"] == "wait"
    assert command("show", "other").returncode == 3
