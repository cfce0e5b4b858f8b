"""Server-sent events: in order, resumed without loss, one tail for all, a slow client dropped."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.api import event_hub
from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.api.event_hub import EventHub
from cloud.client import TwinClient
from cloud.location import PostgresUrl
from cloud.store import event_pages, events
from cloud.store.database import Store
from cloud.store.event_pages import Wanted
from cloud.store.event_tables import Event
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle

STREAM = "/api/v1/events/stream"


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    folder = tmp_path_factory.mktemp("live")
    made = Insides(folder, write_bundle(folder / "bundle"))
    yield made
    made.store.close()


@pytest.fixture(scope="module")
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(context_of(inside)) as made:
        yield made


def context_of(inside: Insides) -> Context:
    return Context(inside.store, inside.catalogue, lambda: inside.now, {})


def happen(store: Store, *kinds: str, **more: Any) -> None:
    with store.write() as db:
        for kind in kinds:
            events.add(db, kind, NOW, **more)


class Follower:
    """A client of the stream; `next` waits for what comes."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def block(self) -> dict[str, str]:
        """The fields of the next event or comment."""
        found: dict[str, str] = {}
        for line in self._lines:
            if not line:
                return found
            name, _, value = line.partition(": ")
            found[name] = value
        raise AssertionError("the stream has ended")

    def next(self) -> dict[str, Any]:
        """The next event; comments are passed over."""
        while "data" not in (block := self.block()):
            pass
        return {"event": block.get("event"), **json.loads(block["data"])}

    def kinds(self, count: int) -> list[str]:
        return [self.next()["kind"] for _ in range(count)]


@contextmanager
def following(client: httpx.Client, last: str | None = None, **asked: Any) -> Iterator[Follower]:
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", STREAM, params=asked, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        follower = Follower(response.iter_lines())
        assert follower.block() == {"": "open", "retry": "3000"}
        yield follower


def test_what_happens_comes_in_order_and_filtered(client: httpx.Client, inside: Insides) -> None:
    with following(client, last="0", kind=["order.", "policy.changed"]) as follower:
        happen(inside.store, "order.placed", "revision.made", "order.done", "orders", cohort="x")
        happen(inside.store, "policy.changed", "policy.read")
        assert follower.kinds(3) == ["order.placed", "order.done", "policy.changed"]
    with following(client, last="0", vehicle_id="car-9", cohort="north") as follower:
        happen(inside.store, "a.one", vehicle_id="car-9", cohort="south")
        happen(inside.store, "a.two", vehicle_id="car-8", cohort="north")
        happen(inside.store, "a.three", vehicle_id="car-9", cohort="north")
        found = follower.next()
        assert (found["kind"], found["vehicle_id"], found["cohort"]) == (
            "a.three", "car-9", "north",
        )  # fmt: skip


def test_a_client_that_was_cut_off_goes_on_where_it_was(
    client: httpx.Client, inside: Insides
) -> None:
    asked = {"vehicle_id": "resumed"}
    happen(inside.store, *(f"n.{i}" for i in range(5)), vehicle_id="resumed")
    with following(client, last="0", **asked) as follower:
        seen = [follower.next() for _ in range(3)]
    happen(inside.store, *(f"n.{i}" for i in range(5, 8)), vehicle_id="resumed")
    with following(client, last=seen[-1]["id"], **asked) as follower:
        happen(inside.store, "n.8", vehicle_id="resumed")
        rest = follower.kinds(6)
    assert [one["kind"] for one in seen] + rest == [f"n.{i}" for i in range(9)]
    with following(client, after=seen[-1]["id"], **asked) as follower:
        assert follower.kinds(1) == ["n.3"]


def test_history_and_what_happens_meanwhile_join_without_a_seam(
    client: httpx.Client, inside: Insides
) -> None:
    happen(inside.store, *["many.one"] * (2 * event_hub.PAGE + 7), vehicle_id="seam")
    with following(client, last="0", vehicle_id="seam") as follower:
        first = follower.next()
        for number in range(20):
            happen(inside.store, "late.one", vehicle_id="seam", detail={"n": number})
        rest = [follower.next() for _ in range(2 * event_hub.PAGE + 6 + 20)]
    ids = [int(one["id"]) for one in (first, *rest)]
    assert ids == sorted(set(ids))
    assert [one["detail"]["n"] for one in rest[-20:]] == list(range(20))


def test_events_of_many_writers_come_in_order_and_none_is_passed_over(
    tmp_path: Path, database: PostgresUrl | None
) -> None:
    """A writer that commits later than one that began after it must not fall behind a reader."""
    made = Insides(tmp_path, write_bundle(tmp_path / "bundle"), database)

    def write(number: int) -> None:
        for _ in range(10):
            happen(made.store, "w.one", "w.two", vehicle_id=str(number))

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    with serving(context_of(made)) as client, following(client, last="0") as follower:
        for thread in threads:
            thread.start()
        ids = [int(follower.next()["id"]) for _ in range(80)]
        for thread in threads:
            thread.join()
    assert ids == sorted(set(ids))
    made.store.close()


def test_who_sees_some_cohorts_hears_of_no_other(inside: Insides) -> None:
    with (
        serving(context_of(inside), Actor("ann", "viewer", frozenset({"mine"}))) as ann,
        following(ann, last="0") as follower,
    ):
        happen(inside.store, "a.theirs", cohort="other")
        happen(inside.store, "a.nobodys")
        happen(inside.store, "a.mine", cohort="mine")
        assert follower.kinds(1) == ["a.mine"]


def test_a_quiet_stream_shows_that_it_lives(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud.api.live.HEARTBEAT_S", 0.05)
    with following(client, kind="nothing.of.this") as follower:
        assert follower.block() == {"": "alive"}


def test_a_wrong_id_is_a_problem_and_one_too_old_a_gap(
    client: httpx.Client, inside: Insides
) -> None:
    problem(client.get(STREAM, headers={"Last-Event-ID": "yesterday"}), 422)
    happen(inside.store, "b.one", "b.two", "b.three", "b.four")
    with inside.store.write() as db:
        for number in (1, 2, 3):
            db.delete(db.get(Event, number))
    with following(client, last="3") as follower:
        assert follower.next()["id"] == "4"
    with following(client, last="1") as follower:
        assert follower.next()["event"] == "gap"


def test_one_that_does_not_read_is_dropped_and_the_others_are_not(inside: Insides) -> None:
    """On the hub itself: over TCP the kernel would take megabytes first."""

    async def both() -> list[Any]:
        hub = EventHub(inside.store)
        slow, quick = (hub.follow(Wanted(kinds=["f."]), None, 0.05) for _ in range(2))
        assert (await anext(slow), await anext(quick)) == (None, None)
        for _ in range(3):
            await asyncio.to_thread(happen, inside.store, *["f.one"] * 500)
            got = 0
            while got < 500:
                got += await anext(quick) is not None
        left = [said async for said in slow]
        await quick.aclose()
        return left

    left = asyncio.run(both())
    assert len(left) == event_hub.QUEUE + 1
    assert left[-1] == "dropped"


def test_the_tail_ends_with_the_last_who_follows(client: httpx.Client, inside: Insides) -> None:
    async def once() -> bool:
        hub = EventHub(inside.store)
        said = hub.follow(Wanted(), None, 0.01)
        assert await anext(said) is None
        tail = hub._tail
        assert tail is not None
        await said.aclose()
        await asyncio.wait_for(tail, 10)
        return hub.followers == 0

    assert asyncio.run(once())


def test_what_is_old_is_deleted_and_what_people_did_much_later(tmp_path: Path) -> None:
    store = Store(tmp_path / "old.db")
    with store.write() as db:
        for at, actor in ((0.0, None), (0.0, "ann"), (NOW, None)):
            events.add(db, "a.b", at, actor=actor)
    day_s = 86400.0
    for now, left in ((31 * day_s, 2), (731 * day_s, 1)):
        with store.write() as db:
            event_pages.delete_old(db, now)
        with store.read() as db:
            assert len(event_pages.after(db, event_pages.START, 10)) == left
    store.close()


def test_a_thousand_clients_share_one_tail(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    read = EventHub._read

    def counted(hub: EventHub, *asked: Any) -> Any:
        reads.append(asked)
        return read(hub, *asked)

    monkeypatch.setattr(EventHub, "_read", counted)

    async def many() -> int:
        hub = EventHub(inside.store)
        all_of_them = [hub.follow(Wanted(kinds=["g."]), None, 5.0) for _ in range(1000)]
        waiting = [asyncio.ensure_future(anext(one)) for one in all_of_them]
        while hub.followers < len(all_of_them):  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)
        await asyncio.to_thread(happen, inside.store, "g.one")
        got = await asyncio.gather(*waiting)
        for one in all_of_them:
            await one.aclose()
        return sum(isinstance(one, Event) for one in got)

    assert asyncio.run(many()) == 1000
    assert len(reads) < 50


def test_the_typed_client_follows(client: httpx.Client, inside: Insides) -> None:
    happen(inside.store, "t.one", "t.two", vehicle_id="typed", detail={"n": 1})
    twin = TwinClient(str(client.base_url), http=client)
    followed = twin.stream_events(after="0", vehicle_id="typed")
    assert [next(followed).kind for _ in range(2)] == ["t.one", "t.two"]
    followed.close()  # type: ignore[attr-defined]  # it is a generator
