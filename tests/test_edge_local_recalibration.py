"""A vehicle that nobody answers helps itself, says so, and gives way to the cloud's word."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from sqlalchemy import text

from cloud.commands import reports
from cloud.intake.interpretation import Delivery
from cloud.store.tables import ProvisionalRow, Trip
from common.bundle import Bundle, load_bundle
from common.calibration import aligned_error_v, estimate_of, extrapolate
from common.messages import Breach, Provisional, Receipt, Status, TripSummary, decode, encode
from common.messages import Declined as DeclinedBreach
from common.model import VoltageModel
from common.revision import Cause, Revision, decode_revision
from common.signing import key_id
from common.topics import topic
from common.trace import from_wire
from common.trust import TrustStore
from edge_agent.agent import Agent
from edge_agent.config import LocalRecalibration, load_config
from edge_agent.errors import ConfigError
from edge_agent.mqtt.link import Disconnected, MqttLink, Received
from edge_agent.parameters import local_recalibration
from edge_agent.storage import kept
from edge_agent.storage.state import State
from edge_agent.timekeeping.clock import Clock as AgentClock
from tests.cloud_doubles import Insides
from tests.support_edge import (
    START,
    TRUST,
    TRUSTED,
    VEHICLE,
    MemoryLink,
    Rig,
    drive,
    revision_for,
    signed,
    write_bundle,
)

DAY_S = 86_400.0
PARAMETERS = topic(VEHICLE, "parameters")


class LonelyRig(Rig):
    """An agent that may help itself after a day, on a computer that booted at START."""

    local: LocalRecalibration | None = LocalRecalibration(after_offline_h=24.0)
    trusted = TRUST
    booted = START
    boot = 1

    def open(self) -> None:
        self.link = MemoryLink()
        self.state = State(self.path, VEHICLE, self.bundle.sha256)
        link = cast("MqttLink", self.link)
        clock = AgentClock(
            self.clock.unix,
            lambda: self.clock.now - self.booted,
            boot_id=lambda: f"boot-{self.boot}",
        )
        self.agent = Agent(
            *(VEHICLE, self.bundle, self.trusted, self.state, link, self.limits, clock),
            local=self.local,
        )

    def reboot(self) -> None:
        self.boot += 1
        self.clock.now += 60.0
        self.booted = self.clock.now - 5.0
        self.reopen()

    def queued(self, kind: str) -> list[bytes]:
        query = "SELECT payload FROM outbox WHERE kind = ? ORDER BY seq"
        return [row[0] for row in self.state.connection.execute(query, (kind,))]

    def provisionals(self) -> list[Provisional]:
        return [decode(payload, Provisional) for payload in self.queued("provisional")]

    def summaries(self) -> list[TripSummary]:
        return [decode(payload, TripSummary) for payload in self.queued("trip")]

    def breaches(self) -> list[Breach]:
        return [decode(payload, Breach) for payload in self.queued("breach")]

    @property
    def in_force(self) -> tuple[int, int]:
        """Revision and step."""
        return self.agent.twin.revision, self.agent.twin.provisional


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def rig(tmp_path: Path, bundle: Bundle) -> Iterator[LonelyRig]:
    made = LonelyRig(tmp_path / "state.db", bundle)
    yield made
    made.state.close()


@pytest.fixture
def helped(rig: LonelyRig) -> LonelyRig:
    """Cut off for two days, and on its first step."""
    rig.clock.now += 2 * DAY_S
    rig.drive("trip-1")
    assert rig.in_force == (0, 1)
    return rig


# ---- when ---------------------------------------------------------------------------------------


def test_off_by_default(tmp_path: Path, bundle: Bundle) -> None:
    off = type("OffRig", (LonelyRig,), {"local": None})(tmp_path / "off.db", bundle)
    off.clock.now += 900 * DAY_S
    off.drive("trip-1")
    assert (off.in_force, off.provisionals()) == ((0, 0), [])
    off.state.close()


@pytest.mark.parametrize(("days", "steps"), [(0.99, 0), (1.0, 1)])
def test_it_waits_for_as_long_as_it_was_told(rig: LonelyRig, days: float, steps: int) -> None:
    rig.connect()
    rig.clock.now += 500 * DAY_S
    rig.tell(Disconnected("gone"))
    rig.clock.now += days * DAY_S
    rig.tell(Disconnected("still gone"))
    rig.drive("trip-1")
    assert len(rig.provisionals()) == steps


def test_while_connected_it_asks_the_cloud(rig: LonelyRig) -> None:
    rig.clock.now += 2 * DAY_S
    rig.connect()
    rig.clock.now += 2 * DAY_S
    rig.drive("trip-1")
    assert rig.provisionals() == []


def test_a_trip_below_the_threshold_changes_nothing(rig: LonelyRig) -> None:
    rig.clock.now += 2 * DAY_S
    rig.drive("trip-1", gain=1.0)
    assert rig.in_force == (0, 0)


def disconnect(rig: LonelyRig) -> None:
    rig.connect()
    rig.tell(Disconnected("gone"))


@pytest.mark.parametrize(
    ("before", "again", "days", "is_due"),
    [
        (disconnect, LonelyRig.reopen, 0.6, True),  # 0.6 before and 0.6 after a restart
        (disconnect, LonelyRig.reboot, 0.6, False),  # what was before this boot is not known
        (disconnect, LonelyRig.reboot, 1.0, True),
        (LonelyRig.connect, LonelyRig.reopen, 0.6, False),  # killed while it was connected
        (LonelyRig.connect, LonelyRig.reopen, 1.0, True),
    ],
)
def test_how_long_the_broker_was_away_survives_a_restart_as_far_as_it_is_known(
    rig: LonelyRig,
    before: Callable[[LonelyRig], None],
    again: Callable[[LonelyRig], None],
    days: float,
    is_due: bool,  # noqa: FBT001
) -> None:
    rig.clock.now += 5 * DAY_S
    before(rig)
    rig.clock.now += 0.6 * DAY_S
    again(rig)
    rig.clock.now += days * DAY_S
    rig.drive("trip-1")
    assert bool(rig.provisionals()) is is_due


def test_a_wall_clock_that_jumps_makes_nobody_lonely(rig: LonelyRig) -> None:
    disconnect(rig)
    rig.clock.jumped = 400 * DAY_S
    rig.drive("trip-1")
    assert rig.provisionals() == []


@pytest.mark.parametrize("hours", ["0", "-1"])
def test_no_time_at_all_is_a_config_error(tmp_path: Path, hours: str) -> None:
    path = tmp_path / "agent.toml"
    minimal = 'vehicle_id = "c"\nbundle = "b"\nstate = "s"\ntrusted_keys = ["k"]\n'
    path.write_text(minimal + "[local_recalibration]\nafter_offline_h = 24\n")
    assert load_config(path).local_recalibration == LocalRecalibration(24.0)
    path.write_text(minimal + f"[local_recalibration]\nafter_offline_h = {hours}\n")
    with pytest.raises(ConfigError, match="after_offline_h"):
        load_config(path)


# ---- what ---------------------------------------------------------------------------------------


def test_it_is_exactly_what_the_cloud_would_have_made(
    helped: LonelyRig, tmp_path: Path, bundle: Bundle
) -> None:
    cloud = Insides(tmp_path, bundle.path)
    cloud.take(*helped.breaches())
    cloud.work()
    cloud.store.close()
    [made], [theirs] = helped.provisionals(), cloud.publisher.of_kind("parameters")
    revision = theirs.revision
    for name in ("odometer", "theta", "rate", "covariance", "rate_growth"):
        assert getattr(made, name) == getattr(revision, name), name
    assert made.discrepancy_std_v == revision.discrepancy_std_v
    assert made.error_after_v == revision.cause.error_after_v < made.error_before_v
    assert (made.cause, made.finding) == (revision.cause.message_id, revision.cause.finding)


def test_the_next_trip_is_driven_on_it_and_says_so(helped: LonelyRig) -> None:
    helped.drive("trip-2", odometer=1300.0)
    first, second = helped.summaries()
    assert (first.revision, first.provisional, first.breach) == (0, 0, True)
    assert (second.revision, second.provisional, second.breach) == (0, 1, False)
    assert second.error_v < first.error_v / 5
    status = helped.agent.status()
    assert (status.revision, status.provisional) == (0, 1)


def test_a_provisional_may_follow_a_provisional(helped: LonelyRig) -> None:
    helped.drive("trip-2", odometer=1300.0, gain=1.3)
    helped.drive("trip-3", odometer=1600.0, gain=1.3)
    assert helped.in_force == (0, 2)
    assert [(made.base, made.step) for made in helped.provisionals()] == [(0, 1), (0, 2)]
    assert [(one.revision, one.provisional) for one in helped.breaches()] == [(0, 0), (0, 1)]
    assert helped.summaries()[2].breach is False


def test_the_chains_own_slots_are_not_touched(helped: LonelyRig) -> None:
    db = helped.state.connection
    assert [row[0] for row in db.execute("SELECT slot FROM parameters")] == ["provisional"]
    helped.connect()
    helped.tell(Received(PARAMETERS, signed(revision_for(helped.bundle))))
    assert helped.in_force == (1, 0)  # number 1 is newer: the step had no number


def test_what_the_cloud_would_decline_is_declined(
    rig: LonelyRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.clock.now += 2 * DAY_S
    with caplog.at_level("INFO"):
        for number in range(2):
            for sample in drive(rig.bundle, f"stuck-{number}", odometer=1000.0 + 300 * number):
                rig.agent.take(replace(sample, voltage_v=4.1))
            rig.agent.driving.end_trip()
    assert len(rig.breaches()) == 2
    assert rig.in_force == (0, 0)
    assert caplog.text.count("sensor is stuck") == 2


def test_it_never_worsens_the_trace_that_it_was_made_of(rig: LonelyRig) -> None:
    rig.clock.now += 2 * DAY_S
    noise = np.random.default_rng(3).normal(0.0, 0.2, 60)
    for trip in range(4):
        samples = drive(rig.bundle, f"t{trip}", odometer=300.0 * trip)
        for sample, off_v in zip(samples, noise * (trip + 1), strict=True):
            shown_v = float(np.clip(sample.voltage_v + off_v, 1.0, 5.0))
            rig.agent.take(replace(sample, voltage_v=shown_v))
        rig.agent.driving.end_trip()
    for made in rig.provisionals():
        assert made.error_after_v < made.error_before_v


# ---- the disk -----------------------------------------------------------------------------------


def test_it_is_in_force_again_after_a_restart(helped: LonelyRig) -> None:
    theta = helped.agent.twin.estimate.theta.tolist()
    helped.reboot()
    assert helped.in_force == (0, 1)
    assert helped.agent.twin.estimate.theta.tolist() == theta


@pytest.mark.parametrize(
    "damage", ["bytes", "another base", "another vehicle", "out of bounds", "no battery's"]
)
def test_what_cannot_be_believed_is_dropped_at_the_start(helped: LonelyRig, damage: str) -> None:
    [made] = helped.provisionals()
    ways: dict[str, dict[str, Any]] = {
        "another base": {"base": 3},
        "another vehicle": {"vehicle_id": "car-2"},
        "out of bounds": {"theta": [9.0, 0.0]},
        "no battery's": {"rate": [1e9, 0.0]},
    }
    raw = b"{"
    if damage in ways:
        raw = encode(msgspec.structs.replace(made, **ways[damage]))
    with helped.state.transaction() as db:
        kept.write_parameters(db, local_recalibration.SLOT, raw)
    helped.reopen()
    assert helped.in_force == (0, 0)
    assert kept.read_slot(helped.state.connection, local_recalibration.SLOT) is None


def test_a_full_disk_leaves_the_parameters_of_before(
    rig: LonelyRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    rig.clock.now += 2 * DAY_S
    with monkeypatch.context() as full:
        full.setattr(kept, "write_parameters", fails)
        rig.drive("trip-1")
    assert (rig.in_force, rig.provisionals()) == ((0, 0), [])
    rig.drive("trip-2", odometer=1300.0)
    assert rig.in_force == (0, 1)


def test_a_trip_that_goes_on_after_a_restart_says_what_it_began_with(helped: LonelyRig) -> None:
    helped.agent.driving.keep_trips()
    samples = list(drive(helped.bundle, "trip-2", odometer=1300.0, count=400))
    for sample in samples[:200]:
        helped.agent.take(sample)
    helped.connect()
    helped.tell(Received(PARAMETERS, signed(revision_for(helped.bundle))))
    helped.agent.driving.leave_trip()
    helped.reopen()
    helped.agent.driving.keep_trips()
    assert helped.in_force == (1, 0)
    for sample in samples[200:]:
        helped.agent.take(sample)
    helped.agent.driving.end_trip()
    last = helped.summaries()[-1]
    assert (last.samples, last.revision, last.provisional) == (400, 0, 1)


# ---- the cloud's word ---------------------------------------------------------------------------


def test_a_revision_is_judged_against_the_base_and_takes_its_place(helped: LonelyRig) -> None:
    """It fits the kept trace worse than the provisional does, and better than the base."""
    helped.connect()
    helped.tell(Received(PARAMETERS, signed(revision_for(helped.bundle, theta=[1.06, 0.0]))))
    assert helped.in_force == (1, 0)
    assert kept.read_slot(helped.state.connection, local_recalibration.SLOT) is None
    helped.reopen()
    assert helped.in_force == (1, 0)


def test_a_revision_that_is_refused_leaves_the_provisional(helped: LonelyRig) -> None:
    helped.connect()
    helped.tell(Received(PARAMETERS, signed(revision_for(helped.bundle, theta=[0.9, 0.0]))))
    assert helped.in_force == (0, 1)


def test_a_decline_of_its_breach_ends_it_and_of_another_does_not(helped: LonelyRig) -> None:
    [breach] = helped.breaches()
    helped.connect()
    for message_id, step in (("0" * 32, 1), (breach.message_id, 0)):
        declined = [DeclinedBreach(message_id, "no")]
        receipt = Receipt(vehicle_id=VEHICLE, declined=declined)
        helped.tell(Received(topic(VEHICLE, "receipt"), encode(receipt)))
        assert helped.in_force == (0, step)


def on_trial(rig: LonelyRig) -> None:
    """Revision 1 has come, and the link has been away for two days."""
    rig.connect()
    rig.drive("trip-1")
    rig.tell(Received(PARAMETERS, signed(revision_for(rig.bundle))), Disconnected("gone"))
    assert rig.agent.status().on_trial
    rig.clock.now += 2 * DAY_S


def test_on_a_revision_that_stands_its_trial_a_provisional_may_grow(rig: LonelyRig) -> None:
    on_trial(rig)
    rig.drive("trip-2", odometer=1300.0, gain=1.4)
    assert rig.in_force == (1, 1)
    assert not rig.agent.status().on_trial


def test_on_a_revision_that_fails_its_trial_none_does(rig: LonelyRig) -> None:
    on_trial(rig)
    rig.drive("trip-2", odometer=1300.0, gain=0.8)
    assert (rig.in_force, rig.provisionals()) == ((0, 0), [])
    rig.drive("trip-3", odometer=1600.0, gain=0.8)
    assert rig.in_force == (0, 1)


def test_a_trial_that_is_not_over_waits_until_its_revision_drives_again(rig: LonelyRig) -> None:
    on_trial(rig)
    rig.agent.driving.keep_trips()
    for sample in list(drive(rig.bundle, "trip-2", odometer=1300.0, gain=1.4, count=400))[:300]:
        rig.agent.take(sample)
    rig.agent.driving.end_trip(partial=True)  # no trip that decides a trial
    assert rig.in_force == (1, 1)
    assert rig.agent.status().on_trial
    assert rig.agent.twin.confirmed is None


# ---- both sides together ------------------------------------------------------------------------


def exchange(rig: LonelyRig, cloud: Insides) -> None:
    """Carry messages both ways until there are no more."""
    sent = heard = 0
    while sent < len(rig.link.sent) or heard < len(cloud.publisher.sent):
        upward, sent = rig.link.sent[sent:], len(rig.link.sent)
        if upward:
            cloud.take(*(Delivery(topic(VEHICLE, kind), body) for kind, body in upward))  # type: ignore[arg-type]
            cloud.work()
        downward, heard = cloud.publisher.sent[heard:], len(cloud.publisher.sent)
        rig.tell(*(Received(one.topic, one.payload) for one in downward))


@pytest.fixture
def cloud(tmp_path: Path, rig: LonelyRig) -> Iterator[Insides]:
    made = Insides(tmp_path, rig.bundle.path)
    public = made.key.public_key()
    rig.trusted = TrustStore({**TRUSTED, key_id(public): public})
    rig.reopen()
    yield made
    made.store.close()


def test_a_month_alone_and_the_way_back(rig: LonelyRig, cloud: Insides) -> None:
    rig.connect()
    rig.drive("before", odometer=500.0, gain=1.05)
    exchange(rig, cloud)
    assert rig.in_force == (1, 0)
    rig.tell(Disconnected("the tunnel"))
    rig.clock.now += 30 * DAY_S
    for number, gain in enumerate((1.15, 1.15, 1.3, 1.3)):
        rig.drive(f"alone-{number}", odometer=1000.0 + 400 * number, gain=gain)
    assert rig.in_force == (1, 2)
    sent = {one.message_id: one for one in rig.breaches()}
    rig.link.sent.clear()
    rig.connect()
    exchange(rig, cloud)
    assert rig.in_force == (3, 0)
    assert rig.agent.is_drained()
    assert [row.verdict for row in cloud.rows(VEHICLE)] == ["applied"] * 3
    rows = cloud.table(ProvisionalRow)
    assert [(row.base, row.step) for row in rows] == [(1, 1), (1, 2)]
    second, third = (decode_revision(row.content) for row in cloud.rows(VEHICLE)[1:])
    of_its_base = error_on(rig.bundle, second, third.cause, sent)
    assert third.cause.error_before_v == pytest.approx(of_its_base)
    driven = {trip.trip_id: (trip.revision, trip.provisional) for trip in cloud.table(Trip)}
    assert driven["alone-1"] == driven["alone-2"] == (1, 1)
    assert driven["alone-3"] == (1, 2)


def error_on(bundle: Bundle, of: Revision, cause: Cause, sent: dict[str, Breach]) -> float:
    """What a revision leaves on the trace that caused another."""
    breach = sent[cause.message_id]
    there = extrapolate(estimate_of(of), bundle.manifest, breach.odometer)
    trace = from_wire(breach.trace, bundle.manifest)
    return aligned_error_v(there, trace, VoltageModel(bundle), bundle.manifest)


def test_the_lineage_shows_both(
    rig: LonelyRig, cloud: Insides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.clock.now += 2 * DAY_S
    rig.drive("trip-1")
    rig.connect()
    exchange(rig, cloud)
    assert reports.history(tmp_path / "twin.db", VEHICLE, as_json=True)
    revision, provisional = json.loads(capsys.readouterr().out)
    assert (revision["number"], revision["cause"]["kind"]) == (1, "breach")
    assert provisional["kind"] == "provisional"
    assert (provisional["base"], provisional["step"], provisional["replaced_by"]) == (0, 1, 1)
    assert "number" not in provisional
    reports.history(tmp_path / "twin.db", VEHICLE, as_json=False)
    assert "provisional" in capsys.readouterr().out


def test_the_cloud_keeps_it_once_and_for_ever(rig: LonelyRig, cloud: Insides) -> None:
    rig.clock.now += 2 * DAY_S
    rig.drive("trip-1")
    [made] = rig.provisionals()
    cloud.take(made, made)
    cloud.take(made)
    assert len(cloud.table(ProvisionalRow)) == 1
    assert cloud.rows(VEHICLE) == []
    for statement in ("UPDATE provisional SET step = 2", "DELETE FROM provisional"):
        with pytest.raises(Exception, match="append-only"), cloud.store.write() as db:
            db.execute(text(statement))


def test_the_cloud_does_not_decline_because_the_vehicle_helped_itself_well(
    rig: LonelyRig, cloud: Insides
) -> None:
    """A breach on a provisional is calibrated from the chain, as if the base had been driven on."""
    rig.clock.now += 2 * DAY_S
    rig.drive("trip-1")
    [breach] = rig.breaches()
    cloud.take(msgspec.structs.replace(breach, provisional=7, error_v=1e-6))
    cloud.work()
    [row] = cloud.rows(VEHICLE)
    assert cloud.publisher.numbers == [1]
    assert row.verdict is None


def test_a_provisional_that_fits_no_bundle_is_quarantined(rig: LonelyRig, cloud: Insides) -> None:
    rig.clock.now += 2 * DAY_S
    rig.drive("trip-1")
    [made] = rig.provisionals()
    bad = [msgspec.structs.replace(made, rate=[0.0]), msgspec.structs.replace(made, covariance=[])]
    short = {"theta": [1.0], "rate": [0.0], "covariance": [1.0, 0.0, 1.0]}
    cloud.take(*bad, msgspec.structs.replace(made, **short))
    assert cloud.table(ProvisionalRow) == []
    assert len(cloud.publisher.of_kind("receipt")[0].receipt.message_ids) == 1


def test_a_status_of_an_older_vehicle_has_no_provisional(rig: LonelyRig) -> None:
    old = json.loads(encode(rig.agent.status()))
    del old["provisional"]
    assert decode(json.dumps(old).encode(), Status).provisional == 0
