"""What operators write over HTTP: once, by somebody, with a reason, and seen in the audit."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.api.writing import ANONYMOUS
from cloud.store import idempotency
from cloud.store.audit_tables import Pin, RecalibrationOrder
from cloud.store.operator_tables import IdempotencyKey
from cloud.store.tables import BatteryOrder, Vehicle
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle
from tests.conftest import ON_BOTH, chosen

V1 = "/api/v1"
DAY_S = 86400.0


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(request: pytest.FixtureRequest, tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path, chosen(request))
    for name in ("car", "van", "bus"):
        made.take(made.car(name).status(), made.car(name).trip(1))
    yield made
    made.store.close()


def context_of(inside: Insides) -> Context:
    return Context(inside.store, inside.catalogue, lambda: inside.now, {}, inside.worker.wake)


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(context_of(inside)) as made:
        yield made


def settings_of(cohort: str, **more: Any) -> dict[str, Any]:
    return {"cohort": cohort, "why": "winter tyres", "by": "desk", **more}


def audit(client: httpx.Client, **question: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = client.get(f"{V1}/audit", params=question).json()["items"]
    return items


# ---- settings and cohorts ------------------------------------------------------------------------


def test_a_vehicle_is_put_into_a_cohort_and_both_cohorts_learn_of_it(client: httpx.Client) -> None:
    wanted = settings_of("winter", label="Van 7")
    answer = client.put(f"{V1}/vehicles/van/settings", json=wanted)
    assert answer.json() == {
        "vehicle_id": "van", "cohort": "winter", "label": "Van 7", "note": None,
    }  # fmt: skip
    assert client.get(f"{V1}/vehicles/van/settings").json() == answer.json()
    assert client.get(f"{V1}/cohorts").json()["items"] == [
        {"name": "default", "vehicles": 2, "online": 2},
        {"name": "winter", "vehicles": 1, "online": 1},
    ]
    moved = audit(client, kind="vehicle.moved")
    assert {one["cohort"] for one in moved} == {"default", "winter"}
    assert {(one["actor"], one["detail"]["why"]) for one in moved} == {("desk", "winter tyres")}


def test_a_write_without_a_reason_is_refused(client: httpx.Client) -> None:
    for body in ({"cohort": "x"}, {"cohort": "x", "why": ""}, {"cohort": "a b", "why": "y"}):
        assert client.put(f"{V1}/vehicles/van/settings", json=body).status_code == 422
    assert audit(client) == []


def test_nobody_overwrites_settings_that_they_have_not_seen(client: httpx.Client) -> None:
    path = f"{V1}/vehicles/van/settings"
    seen = client.get(path).headers["ETag"]
    first = client.put(path, json=settings_of("a"), headers={"If-Match": seen})
    assert first.status_code == 200
    problem(client.put(path, json=settings_of("b"), headers={"If-Match": seen}), 412)
    again = {"If-Match": first.headers["ETag"]}
    assert client.put(path, json=settings_of("b"), headers=again).status_code == 200


def test_many_vehicles_move_together_or_not_at_all(client: httpx.Client) -> None:
    path = f"{V1}/cohorts/winter/vehicles"
    body = {"vehicle_ids": ["car", "van", "car"], "why": "cold", "by": "desk"}
    assert client.post(path, json=body).json() == {
        "cohort": "winter", "assigned": 2, "already": 0,
    }  # fmt: skip
    body["vehicle_ids"] = ["bus", "nobody"]
    assert "nobody" in problem(client.post(path, json=body), 404)["detail"]
    sizes = {one["name"]: one["vehicles"] for one in client.get(f"{V1}/cohorts").json()["items"]}
    assert sizes == {"default": 1, "winter": 2}


def test_a_dry_run_answers_as_the_write_would_and_changes_nothing(client: httpx.Client) -> None:
    path = f"{V1}/vehicles/van/settings"
    tried = client.put(f"{path}?dry_run=true", json=settings_of("winter"))
    assert (tried.json()["cohort"], tried.headers["Dry-Run"]) == ("winter", "true")
    assert client.get(path).json()["cohort"] == "default"
    assert audit(client) == []


def test_who_has_some_cohorts_neither_sees_nor_touches_others(
    inside: Insides, client: httpx.Client
) -> None:
    client.put(f"{V1}/vehicles/van/settings", json=settings_of("winter"))
    with serving(context_of(inside), Actor("ann", "operator", frozenset({"winter"}))) as ann:
        assert [one["name"] for one in ann.get(f"{V1}/cohorts").json()["items"]] == ["winter"]
        problem(ann.get(f"{V1}/vehicles/car/settings"), 404)
        problem(ann.put(f"{V1}/vehicles/car/settings", json=settings_of("winter")), 404)
        problem(ann.put(f"{V1}/vehicles/van/settings", json=settings_of("default")), 403)
        told = {"vehicle_ids": ["car"], "why": "mine"}
        problem(ann.post(f"{V1}/cohorts/winter/vehicles", json=told), 404)
        assert {one["cohort"] for one in audit(ann)} == {"winter"}


def test_the_authenticated_name_counts_not_what_the_body_says(inside: Insides) -> None:
    told = {"by": "somebody else", "why": "two dead cells", "odometer": 5000.0}
    with serving(context_of(inside), Actor("ann", "operator")) as ann:
        order = ann.post(f"{V1}/vehicles/car/battery-replaced", json=told).json()
        assert order["ordered_by"] == "ann"
        assert {one["actor"] for one in audit(ann)} == {"ann"}


# ---- orders --------------------------------------------------------------------------------------


def test_an_order_is_followed_from_waiting_to_its_revision(
    inside: Insides, client: httpx.Client
) -> None:
    told = {"by": "desk", "why": "two dead cells", "odometer": 5000.0}
    placed = client.post(f"{V1}/vehicles/car/battery-replaced", json=told)
    assert (placed.status_code, placed.json()["state"]) == (202, "waiting")
    inside.work()
    found = client.get(placed.headers["Location"]).json()
    assert (found["state"], found["revision"], found["odometer"]) == ("done", 1, 5000.0)
    kinds = [one["kind"] for one in audit(client, vehicle_id="car")]
    assert kinds == ["order.placed"]


@ON_BOTH
def test_orders_of_every_kind_are_one_list_in_pages(inside: Insides, client: httpx.Client) -> None:
    for trip in (2, 3):
        inside.take(inside.car().breach(trip))
        inside.work()
    for name in ("car", "van", "bus"):
        told = {"by": "desk", "why": "swap", "odometer": 9000.0}
        client.post(f"{V1}/vehicles/{name}/battery-replaced", json=told)
        inside.now += 1.0
    back = {"by": "desk", "why": "bad sensor", "to": 1}
    assert client.post(f"{V1}/vehicles/car/roll-back", json=back).status_code == 202
    seen, cursor = [], None
    while True:
        wanted: dict[str, Any] = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        page = client.get(f"{V1}/orders", params=wanted).json()
        seen += [(one["kind"], one["vehicle_id"]) for one in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    swapped = [("battery_replaced", name) for name in ("bus", "van", "car")]
    assert seen == [("roll_back", "car"), *swapped]
    of_van = client.get(f"{V1}/orders", params={"vehicle_id": "van"}).json()["items"]
    assert [one["id"] for one in of_van] == ["battery_replaced-2"]
    problem(client.get(f"{V1}/orders/roll_back-99"), 404)
    problem(client.get(f"{V1}/orders/nonsense"), 404)


@pytest.fixture
def driven(inside: Insides) -> Insides:
    """The car has revisions 1 and 2, and a breach that came too late."""
    for trip, running in ((2, 0), (4, 1), (3, 2)):
        inside.take(inside.car().breach(trip, revision=running))
        inside.work()
    return inside


def order(client: httpx.Client, what: str, told: dict[str, Any] | None = None) -> httpx.Response:
    body = {"by": "desk", "why": "a bad sensor", **(told or {})}
    return client.post(f"{V1}/vehicles/car/{what}", json=body)


def test_a_recalibration_brings_a_new_branch(driven: Insides, client: httpx.Client) -> None:
    tried = client.post(
        f"{V1}/vehicles/car/recalibrate?dry_run=true", json={"why": "a gap", "from": 1}
    )
    assert (tried.status_code, tried.headers["Dry-Run"]) == (202, "true")
    assert client.get(f"{V1}/orders").json()["items"] == []
    placed = order(client, "recalibrate", {"from": 1})
    assert (placed.status_code, placed.json()["state"]) == (202, "waiting")
    assert (placed.json()["kind"], placed.json()["from_revision"]) == ("recalibration", 1)
    assert order(client, "recalibrate", {"from": 1}).json()["id"] == placed.json()["id"]
    driven.work()
    found = client.get(placed.headers["Location"]).json()
    assert (found["state"], found["revision"]) == ("done", driven.rows()[-1].number)
    assert [one.kind for one in driven.rows()[2:]] == ["recalibration"] * 2


def test_a_pin_holds_back_orders_until_it_is_ended(driven: Insides, client: httpx.Client) -> None:
    placed = order(client, "pin", {"to": 1})
    assert (placed.status_code, placed.json()["state"]) == (202, "waiting")
    driven.work()
    found = client.get(placed.headers["Location"]).json()
    assert (found["state"], found["revision"]) == ("done", 3)
    for what, told in (("roll-back", {"to": 2}), ("recalibrate", {"from": 1}), ("pin", {"to": 2})):
        assert "pinned" in problem(order(client, what, told), 409)["detail"]
    assert order(client, "unpin").status_code == 202
    assert "not pinned" in problem(order(client, "unpin"), 409)["detail"]
    assert order(client, "roll-back", {"to": 2}).status_code == 202
    kinds = [one["kind"] for one in audit(client, vehicle_id="car")]
    assert kinds == ["order.placed", "pin.ended", "order.placed"]


@pytest.mark.parametrize(
    ("what", "told", "why"),
    [
        ("recalibrate", {"from": 9}, "no such revision"),
        ("recalibrate", {"from": 2}, "no breach is recorded"),
        ("pin", {"to": 9}, "no such revision"),
        ("unpin", {}, "not pinned"),
    ],
)
def test_an_order_that_leads_nowhere_is_a_contradiction(
    driven: Insides, client: httpx.Client, what: str, told: dict[str, Any], why: str
) -> None:
    assert why in problem(order(client, what, told), 409)["detail"]
    assert driven.table(RecalibrationOrder) == driven.table(Pin) == []


@pytest.mark.parametrize(
    ("what", "told"), [("recalibrate", {"from": 1}), ("pin", {"to": 1}), ("unpin", {})]
)
def test_orders_about_the_history_are_for_operators_of_the_cohort(
    driven: Insides, what: str, told: dict[str, Any]
) -> None:
    """That they need the role is in test_api_access.py, with every route."""
    with serving(context_of(driven), Actor("ann", "operator", frozenset({"north"}))) as ann:
        problem(order(ann, what, told), 404)
    with serving(context_of(driven), Actor("bob", "operator", frozenset({"default"}))) as bob:
        if what == "unpin":
            order(bob, "pin", {"to": 1})
        assert order(bob, what, told).json()["ordered_by"] == "bob"


# ---- idempotency ---------------------------------------------------------------------------------


def replaced(client: httpx.Client, key: str | None, odometer: float) -> httpx.Response:
    told = {"by": "desk", "why": "swap", "odometer": odometer}
    headers = {"Idempotency-Key": key} if key else {}
    return client.post(f"{V1}/vehicles/car/battery-replaced", json=told, headers=headers)


def test_the_same_key_with_another_body_is_refused(client: httpx.Client) -> None:
    assert replaced(client, "one", 5000.0).status_code == 202
    assert "one" in problem(replaced(client, "one", 6000.0), 422)["detail"]


def test_a_refused_write_keeps_no_answer(inside: Insides, client: httpx.Client) -> None:
    told = {"by": "desk", "why": "bad sensor", "to": 1}
    key = {"Idempotency-Key": "one"}
    path = f"{V1}/vehicles/car/roll-back"
    problem(client.post(path, json=told, headers=key), 409)
    for trip in (2, 3):
        inside.take(inside.car().breach(trip))
        inside.work()
    assert client.post(path, json=told, headers=key).status_code == 202


@ON_BOTH
def test_a_key_is_forgotten_after_a_day(inside: Insides, client: httpx.Client) -> None:
    replaced(client, "one", 5000.0)
    inside.now += DAY_S + 1.0
    assert "Idempotency-Replayed" not in replaced(client, "one", 7000.0).headers
    assert len(inside.table(IdempotencyKey)) == 1


def test_a_key_belongs_to_its_actor(inside: Insides, client: httpx.Client) -> None:
    replaced(client, "one", 5000.0)
    with serving(context_of(inside), Actor("ann", "operator")) as ann:
        assert replaced(ann, "one", 6000.0).status_code == 202


@ON_BOTH
def test_requests_with_one_key_at_the_same_time_are_one_write(
    inside: Insides, client: httpx.Client
) -> None:
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: answers.append(replaced(client, "one", 5000.0)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [answer for answer in answers if answer.status_code == 202]
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in done) == 1
    assert len({answer.content for answer in done}) == 1
    assert len(inside.table(BatteryOrder)) == 1


@pytest.mark.parametrize("inside", ["postgresql"], indirect=True)
def test_a_key_whose_first_request_is_still_at_work_is_409(
    inside: Insides, client: httpx.Client
) -> None:
    """On SQLite the second request waits for the first instead."""
    with inside.store.write() as db:
        idempotency.known(db, ANONYMOUS, "one", "the first", NOW)
        problem(replaced(client, "one", 5000.0), 409)
        assert replaced(client, "two", 6000.0).status_code == 202
        db.rollback()
    assert replaced(client, "one", 5000.0).status_code == 202


WRITES = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([5000.0, 6000.0]), st.booleans()),
    max_size=8,
)
EXAMPLES = itertools.count()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(writes=WRITES)
def test_whatever_is_sent_again_is_done_once_and_answered_alike(
    inside: Insides, client: httpx.Client, writes: list[Any]
) -> None:
    """Against a model: a key is bound to its first body; each new (key, body) writes once."""
    number = next(EXAMPLES)
    bound: dict[str, tuple[float, bytes]] = {}
    for letter, base, is_restarted in writes:
        if is_restarted:
            inside.start()
        odometer, key = base + number, letter and f"{letter}{number}"
        answer = replaced(client, key, odometer)
        inside.now += 1.0
        if key is None:
            assert answer.status_code == 202
        elif key not in bound:
            assert answer.status_code == 202
            bound[key] = odometer, answer.content
        elif bound[key][0] == odometer:
            assert (answer.status_code, answer.content) == (202, bound[key][1])
            assert answer.headers["Idempotency-Replayed"] == "true"
            assert answer.headers["Location"].startswith(f"{V1}/orders/")
        else:
            problem(answer, 422)
    wanted = {odometer for odometer, _ in bound.values()}
    wanted |= {base + number for letter, base, _ in writes if letter is None}
    placed = {order.odometer for order in inside.table(BatteryOrder)}
    assert {one for one in placed if one % 1000 == number} == wanted


def test_the_vehicles_own_messages_leave_settings_alone(
    inside: Insides, client: httpx.Client
) -> None:
    client.put(f"{V1}/vehicles/van/settings", json=settings_of("winter", note="left rear"))
    inside.take(inside.car("van").status(revision=0), inside.car("van").trip(2))
    van = next(row for row in inside.table(Vehicle) if row.vehicle_id == "van")
    assert (van.cohort, van.note, van.last_seen_at) == ("winter", "left rear", NOW)
