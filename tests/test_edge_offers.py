"""What goes out first, how fast, how much of it at once; and when the broker is tried again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.edge.reconnects import returns
from common.messages import MAX_PAYLOAD_BYTES, message_id
from common.topics import DOWNWARD, Kind, topic
from edge_agent.mqtt.backoff import DELAYS, STABLE_S, Backoff
from edge_agent.mqtt.broker_limits import AWS_IOT_CORE, BrokerLimits
from edge_agent.mqtt.offers import SCAN, STATUSES, WINDOW, WINDOW_BYTES, Offers
from edge_agent.mqtt.pacing import BYTES, MESSAGES, Pace, Rate, TokenBucket
from edge_agent.storage import outbox
from edge_agent.storage.state import State

AWS_MESSAGES, AWS_BYTES = 100, 512e3  # a second and connection


class Line:
    """Offers over a real outbox, and a broker that takes what it is given when told to."""

    def __init__(self, path: Path) -> None:
        self.state = State(path, "car-1", "0" * 64)
        self.offers = Offers(30.0)
        self.sent: list[str] = []
        self.open: list[int] = []
        self.sizes: list[tuple[float, int]] = []
        self.now = 1000.0
        self.is_cut = False

    def keep(self, kind: Kind, name: str, size: int = 10) -> None:
        with self.state.transaction() as db:
            outbox.put(db, kind, name, bytes(size))

    def publish(self, _kind: Kind, payload: bytes) -> int | None:
        if self.is_cut:
            return None
        self.sizes.append((self.now, len(payload)))
        self.open.append(len(self.sizes))
        return self.open[-1]

    def offer(self) -> list[str]:
        """What was offered just now."""
        before = set(self.offers._offers)
        self.wait_s = self.offers.offer(self.state.connection, self.publish, self.now)
        new = [name for name in self.offers._offers if name not in before]
        self.sent += new
        return new

    def accept(self) -> None:
        for mid in self.open:
            self.offers.accepted(mid)
        self.open.clear()

    def receive(self, *names: str) -> None:
        with self.state.transaction() as db:
            outbox.free(db, names)
        self.offers.freed(names)

    def drain(self, seconds: float, *, receipts: bool = True) -> None:
        """A broker and a cloud that answer at once, looked at as often as the offers ask for."""
        end = self.now + seconds
        while self.now < end:
            offered = self.offer()
            self.accept()
            if receipts:
                self.receive(*offered)
            self.now += 0.01 if offered else min(max(self.wait_s, 0.01), 1.0)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    made = Line(tmp_path / "state.db")
    yield made
    made.state.close()


# ---- order -----------------------------------------------------------------------------------


def test_a_verdict_and_a_new_trip_do_not_wait_behind_the_backlog(line: Line) -> None:
    for number in range(100):
        line.keep("trip", f"old-{number:02}")
    line.offers.reconnected()
    assert line.offer() == [f"old-{number:02}" for number in range(WINDOW)]
    line.keep("trip", "new")
    line.keep("ack", "verdict")
    line.accept()
    assert line.offer()[:3] == ["verdict", "new", f"old-{WINDOW}"]


def test_the_first_trip_goes_before_the_newest_so_that_the_cloud_starts_there(line: Line) -> None:
    line.keep("trip", "old-1")
    line.keep("trip", "old-2")
    line.offers.reconnected()
    line.is_cut = True
    line.offer()
    line.keep("trip", "new")
    line.is_cut = False
    assert line.offer() == ["old-1", "new", "old-2"]


def test_breaches_go_one_at_a_time_in_the_order_of_the_trips_whatever_else_waits(
    line: Line,
) -> None:
    for number in range(5):
        line.keep("breach", f"breach-{number}")
        line.keep("trip", f"trip-{number}")
    for number in range(5):
        assert [name for name in line.offer() if name.startswith("breach")] == [f"breach-{number}"]
        line.accept()
        assert line.offer() == []
        line.receive(f"breach-{number}", f"trip-{number}")


def test_after_a_reconnect_everything_without_a_receipt_is_offered_again(line: Line) -> None:
    for name in ("trip-1", "trip-2"):
        line.keep("trip", name)
    line.offer()
    line.offers.accepted(1)
    line.offers.reconnected()
    assert line.offer() == ["trip-1", "trip-2"]


# ---- at one time -----------------------------------------------------------------------------


@pytest.mark.parametrize(("allowed", "at_once"), [(100, 20), (20, 16), (10, 6), (1, 1)])
def test_the_brokers_receive_maximum_is_never_exceeded(
    line: Line, allowed: int, at_once: int
) -> None:
    for number in range(50):
        line.keep("trip", f"trip-{number:02}")
    line.offers.reconnected(BrokerLimits(in_flight=allowed))
    assert len(line.offer()) == at_once
    assert at_once + STATUSES <= max(allowed, 1 + STATUSES)


def test_few_large_messages_are_on_the_way_at_once(line: Line) -> None:
    for number in range(10):
        line.keep("trip", f"trip-{number}", size=30_000)
    line.offer()
    assert sum(size for _, size in line.sizes) < WINDOW_BYTES + 30_000
    assert len(line.sizes) == 3


def test_what_the_broker_does_not_take_is_passed_over_and_said(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    line.keep("breach", "large", size=5000)
    line.keep("breach", "small", size=100)
    line.offers.reconnected(BrokerLimits(packet_bytes=2000))
    line.offer()
    line.offer()
    assert line.sent == ["small"]
    assert caplog.text.count("message_too_large message=large") == 1
    line.offers.reconnected()
    assert line.offer() == ["large"]


def test_without_a_connection_nothing_counts_as_offered(line: Line) -> None:
    line.keep("trip", "trip-1")
    line.is_cut = True
    assert line.offer() == []
    line.is_cut = False
    assert line.offer() == ["trip-1"]


def test_a_cloud_that_sends_no_receipt_gets_no_more_than_the_scan(line: Line) -> None:
    for number in range(SCAN + 50):
        line.keep("trip", f"trip-{number:03}")
    line.drain(20.0, receipts=False)
    assert len(line.sent) == SCAN


# ---- a second --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [700, 12_000, MAX_PAYLOAD_BYTES])
def test_no_second_of_a_drain_reaches_the_limits_of_aws(line: Line, size: int) -> None:
    for number in range(300 if size < 10_000 else 40):
        line.keep("trip", f"trip-{number:03}", size)
    line.drain(60.0)
    assert outbox.size(line.state.connection)[0] == 0
    for begin, _ in line.sizes:
        within = [size for at, size in line.sizes if begin <= at < begin + 1.0]
        assert len(within) <= AWS_MESSAGES - 10  # the rest is for status
        assert sum(within) <= AWS_BYTES


def test_a_backlog_goes_out_at_its_pace_and_no_slower(line: Line) -> None:
    for number in range(540):
        line.keep("trip", f"trip-{number:03}", size=700)
    begin = line.now
    line.drain(30.0)
    assert len(line.sent) == 540
    assert line.sizes[-1][0] - begin == pytest.approx((540 - MESSAGES.burst) / 50.0, abs=0.5)


def test_a_bucket_gives_what_has_come_in_and_not_more_than_it_holds() -> None:
    bucket = TokenBucket(Rate(per_s=10.0, burst=5.0))
    bucket.take(5.0, 100.0)
    assert bucket.wait_s(1.0, 100.0) == pytest.approx(0.1)
    assert bucket.wait_s(1.0, 100.1) == pytest.approx(0.0)
    assert bucket.wait_s(5.0, 1000.0) == 0.0
    bucket.take(5.0, 1000.0)
    assert bucket.wait_s(1.0, 500.0) == pytest.approx(0.1)  # a clock that steps back gives nothing


def test_burst_and_rate_together_stay_below_a_second_of_aws() -> None:
    assert MESSAGES.burst + MESSAGES.per_s + 10 <= AWS_MESSAGES
    assert BYTES.burst + BYTES.per_s <= AWS_BYTES
    assert Pace().wait_s(MAX_PAYLOAD_BYTES, 0.0) == 0.0


def test_the_contract_fits_aws_iot_core() -> None:
    longest = topic("v" * 64, "parameters")
    assert len(longest) <= 256
    assert longest.count("/") <= 7
    assert len(DOWNWARD) <= 8  # subscriptions in one call
    assert AWS_IOT_CORE.fits(MAX_PAYLOAD_BYTES)
    assert len(message_id("v", "t", "trip")) == 32


# ---- trying again ----------------------------------------------------------------------------


def backoff(seed: int = 1) -> Backoff:
    return Backoff(random.Random(seed), DELAYS)


def test_each_wait_is_drawn_from_an_interval_that_doubles_up_to_a_minute() -> None:
    many = [backoff(seed) for seed in range(300)]
    for attempt in range(12):
        longest = min(60.0, DELAYS.first_s * 2**attempt)
        waits = [one.next_delay_s(0.0, refused=False) for one in many]
        assert 0.0 <= min(waits) < 0.05 * longest
        assert 0.95 * longest < max(waits) <= longest


def test_a_good_connection_starts_the_waits_anew_and_a_short_one_does_not() -> None:
    waiting = backoff()
    for _ in range(20):
        waiting.next_delay_s(0.0, refused=False)
    assert max(waiting.next_delay_s(STABLE_S / 2, refused=False) for _ in range(50)) > 30.0
    assert waiting.next_delay_s(STABLE_S, refused=False) <= DELAYS.first_s


def test_a_refused_vehicle_waits_up_to_a_quarter_of_an_hour() -> None:
    waits = [backoff(seed).next_delay_s(0.0, refused=True) for seed in range(200)]
    assert 25.0 < max(waits) <= 30.0
    waiting = backoff()
    late = [waiting.next_delay_s(0.0, refused=True) for _ in range(200)]
    assert 800.0 < max(late) <= 900.0


def test_a_fleet_does_not_return_in_step() -> None:
    """500 vehicles, a minute without a broker: no second sees more than a tenth of them."""
    back_s = returns(500, outage_s=60.0, seed=1)
    seconds = [int(at) for at in back_s]
    assert max(seconds.count(second) for second in set(seconds)) < 50
    assert max(back_s) < 125.0
