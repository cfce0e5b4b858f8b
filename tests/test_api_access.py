"""Who may ask what: every route of the API against every kind of caller; what guards them all."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import msgspec
import pytest
from fastapi.routing import APIRoute
from sqlmodel import select

from cloud.api.access import Context
from cloud.api.app import create_app
from cloud.api.authority import ROLES, Role
from cloud.api.gate import CLOSED, METRICS, OPEN, Entrance, address_of
from cloud.api.problems import PATH
from cloud.errors import StoreUnavailableError
from cloud.security import api_keys
from cloud.security.buckets import Buckets, Rate
from cloud.security.doors import Doors, KeyDoor
from cloud.security.settings import Limits
from cloud.store import api_keys as stored_keys
from cloud.store.access_tables import ApiKey
from cloud.store.event_tables import Event
from cloud.store.tables import Vehicle
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle

V1 = "/api/v1"
VEHICLE, FOREIGN = "car", "other-car"
FREE = Limits(
    key_per_s=1e6,
    key_burst=10**6,
    address_per_s=1e6,
    address_burst=10**6,
    failures_per_minute=10**6,
)


@dataclass
class House:
    """A service's API with one vehicle of cohort `default` and one of cohort `north`."""

    context: Context
    client: httpx.Client
    clock: list[float]

    def key(self, role: Role, cohorts: list[str] | None = None, ends: float | None = None) -> str:
        row, key = api_keys.make(
            role, role, cohorts, ends, "test", self.clock[0], secrets.token_bytes
        )
        with self.context.store.write() as db:
            stored_keys.add(db, row)
        return key

    def ask(self, method: str, path: str, key: str | None, body: object = None) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return self.client.request(method, path, headers=headers, json=body)

    def stored(self, key: str) -> ApiKey:
        with self.context.store.read() as db:
            row = stored_keys.find(db, str(api_keys.id_in(key)))
        assert row is not None
        return row


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Insides:
    folder = tmp_path_factory.mktemp("access")
    inside = Insides(folder, write_bundle(folder))
    inside.take(inside.car(VEHICLE).breach(1), inside.car(FOREIGN).breach(1))
    inside.work()
    with inside.store.write() as db:
        found = db.get(Vehicle, FOREIGN)
        assert found is not None
        found.cohort = "north"
    return inside


Opening = Callable[..., House]


def limits(**changes: Any) -> Limits:
    """No limit that a test would meet, but for these."""
    return msgspec.structs.replace(FREE, **changes)


@contextmanager
def opened(inside: Insides, limits: Limits = FREE, **more: Any) -> Iterator[House]:
    clock = [NOW]
    doors = Doors(KeyDoor(inside.store, lambda: clock[0]), None, lambda: clock[0])
    entrance = Entrance(doors, limits, **more)
    context = Context(inside.store, inside.catalogue, lambda: clock[0], {}, entrance=entrance)
    with serving(context) as client:
        yield House(context, client, clock)


@pytest.fixture
def opening(inside: Insides) -> Iterator[Opening]:
    """A house of the limits that are given; the clock of its keys can be turned."""
    with ExitStack() as stack:
        yield lambda *args, **more: stack.enter_context(opened(inside, *args, **more))


@pytest.fixture(scope="module")
def house(inside: Insides) -> Iterator[House]:
    """One for every test that leaves its clock alone."""
    with opened(inside) as house:
        yield house


# Pages that tell nothing of the fleet.
OPEN_ROUTES = {*OPEN, f"{PATH}/{{status}}"}
ASKING = ("/predict", "/range", "/planned-trip", "/what-if")
FOR_ADMINS = ("api-keys", "policies", "webhooks", "bundles", "releases", "rollouts")


def needed(method: str, path: str) -> Role | None:
    """The table: reading and asking is for viewers, vehicles for operators, the rest for admins."""
    if path in OPEN_ROUTES:
        return None
    if "api-keys" in path or "webhooks" in path:  # where secrets go is for admins alone to know
        return "admin"
    if method == "GET" or path.endswith(ASKING):
        return "viewer"
    if "/rollouts/" in path:  # beginning one is for admins; holding one must not wait for them
        return "operator"
    return "admin" if any(f"/{part}" in path for part in FOR_ADMINS) else "operator"


def api_routes() -> list[tuple[str, str]]:
    """Every route, also one that the description leaves out."""
    nothing: Any = None
    found = sorted(_walk(create_app(nothing).routes))
    assert ("DELETE", f"{V1}/api-keys/{{key_id}}") in found
    assert ("GET", f"{V1}/vehicles/{{vehicle_id}}") in found
    return found


def _walk(routes: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "original_router"):
            yield from _walk(route.original_router.routes)
        elif isinstance(route, APIRoute):
            yield from ((method, route.path) for method in route.methods or ())
        else:
            assert route.path in OPEN | {METRICS}


def filled(path: str, vehicle_id: str = VEHICLE) -> str:
    return re.sub(r"{\w+}", "1", path.replace("{vehicle_id}", vehicle_id))


@pytest.mark.parametrize(("method", "path"), api_routes())
def test_every_route_lets_in_whom_the_table_says_and_nobody_else(
    house: House, method: str, path: str
) -> None:
    need = needed(method, path)
    body: Any = None if method in {"GET", "DELETE"} else {}

    def status(key: str | None) -> int:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with house.client.stream(method, filled(path), headers=headers, json=body) as answer:
            if answer.status_code == 401:
                assert answer.headers["www-authenticate"].startswith("Bearer")
            return answer.status_code

    if need is None:
        assert status(None) not in {401, 403}
        return
    for shown in (None, "garbage", f"twin_{'0' * 16}_{'A' * 43}", house.key("admin")[:-1] + "-"):
        assert status(shown) == 401
    for role in ROLES:
        may = ROLES.index(role) >= ROLES.index(need)
        assert (status(house.key(role)) not in {401, 403}) == may, role
        assert may or status(house.key(role)) == 403


@pytest.mark.parametrize(("method", "path"), api_routes())
def test_a_vehicle_of_another_cohort_is_not_there(house: House, method: str, path: str) -> None:
    if needed(method, path) is None or path.endswith("/stream"):
        return  # a stream never ends: test_cloud_api_cohorts and its own tests look at it
    stranger = house.key("admin", ["south"])
    body: Any = None if method in {"GET", "DELETE"} else {}
    shown = house.ask(method, filled(path), stranger, body)
    if "{vehicle_id}" in path:
        unknown = house.ask(method, filled(path, "xyz"), stranger, body)
        assert shown.status_code == unknown.status_code >= 400
        assert _told(shown) == _told(unknown).replace("xyz", VEHICLE)
    else:
        assert VEHICLE not in shown.text


def _told(answer: httpx.Response) -> str:
    """All but what names the request itself."""
    return re.sub(r'"trace_id":"[0-9a-f]+"', "", answer.text)


def test_who_has_a_cohort_sees_its_vehicles_alone(house: House) -> None:
    key = house.key("viewer", ["north"])
    listed = house.ask("GET", f"{V1}/vehicles", key).json()["items"]
    assert [item["vehicle_id"] for item in listed] == [FOREIGN]
    assert house.ask("GET", f"{V1}/vehicles/{FOREIGN}/revisions", key).status_code == 200
    assert house.ask("GET", f"{V1}/vehicles/{VEHICLE}/revisions", key).status_code == 404


def test_an_address_that_is_not_there_is_not_told_to_strangers(house: House) -> None:
    problem(house.client.get(f"{V1}/nothing"), 401)
    problem(house.ask("GET", f"{V1}/nothing", house.key("viewer")), 404)
    problem(house.client.post("/healthz"), 401)


def test_a_key_is_stored_as_a_digest_and_its_use_is_noted_once_a_minute(
    opening: Opening, inside: Insides
) -> None:
    house = opening()
    key = house.key("viewer")
    secret = key.split("_", 2)[2]
    for file in inside.path.parent.glob("twin.db*"):
        assert secret.encode() not in file.read_bytes()
    for later, noted in ((0.0, NOW), (59.0, NOW), (65.0, NOW + 65.0)):
        house.clock[0] = NOW + later
        assert house.ask("GET", f"{V1}/vehicles", key).status_code == 200
        assert house.stored(key).last_used_at == noted


def test_a_key_expires_and_is_revoked_within_seconds(opening: Opening) -> None:
    house = opening()
    brief, lasting, boss = (
        house.key("viewer", ends=NOW + 60),
        house.key("viewer"),
        house.key("admin"),
    )
    assert house.ask("GET", f"{V1}/vehicles", lasting).status_code == 200
    house.clock[0] = NOW + 61
    problem(house.ask("GET", f"{V1}/vehicles", brief), 401)
    path = f"{V1}/api-keys/{api_keys.id_in(lasting)}"
    assert house.ask("DELETE", path, boss).json()["revoked_at"] is not None
    house.clock[0] += 5.1
    problem(house.ask("GET", f"{V1}/vehicles", lasting), 401)
    assert house.ask("DELETE", path, boss).status_code == 200


def test_a_rotated_key_works_beside_the_new_one_for_the_overlap_alone(opening: Opening) -> None:
    house = opening()
    boss = house.key("admin")
    made = house.ask("POST", f"{V1}/api-keys", boss, {"name": "grafana", "role": "viewer"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    path, old = f"{V1}/api-keys/{made.json()['id']}/rotate", made.json()["key"]
    new = house.ask("POST", path, boss, {"overlap_h": 1}).json()["key"]
    assert new != old
    for key in (old, new):
        assert house.ask("GET", f"{V1}/vehicles", key).status_code == 200
    house.clock[0] += 3601
    problem(house.ask("GET", f"{V1}/vehicles", old), 401)
    assert house.ask("GET", f"{V1}/vehicles", new).status_code == 200
    house.ask("DELETE", path.removesuffix("/rotate"), boss)
    problem(house.ask("POST", path, boss, {}), 409)


def test_secrets_are_shown_once_and_what_is_done_is_written_down(house: House) -> None:
    boss = house.key("admin")
    wanted = {"name": "ci", "role": "operator", "cohorts": ["north"]}
    made = house.ask("POST", f"{V1}/api-keys", boss, wanted).json()
    listed = house.ask("GET", f"{V1}/api-keys?limit=500", boss)
    (item,) = [one for one in listed.json()["items"] if one["id"] == made["id"]]
    assert item == {name: value for name, value in made.items() if name != "key"}
    assert item["cohorts"] == ["north"]
    assert item["created_by"].endswith("(admin)")
    assert made["key"].split("_", 2)[2] not in listed.text
    with house.context.store.read() as db:
        kinds = [
            event.kind for event in db.exec(select(Event)) if made["id"].encode() in event.detail
        ]
    assert kinds == ["api_key.created"]


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"name": "a\nb"}, "letters"),
        ({"cohorts": []}, "no cohort"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expired"),
        ({"role": "root"}, "viewer"),
        ({"secret": "mine"}, "Extra inputs"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(
    house: House, wanted: dict[str, Any], told: str
) -> None:
    body = {"name": "x", "role": "viewer"} | wanted
    found = problem(house.ask("POST", f"{V1}/api-keys", house.key("admin"), body), 422)
    assert told in found["detail"]


def test_who_comes_too_often_is_told_when_to_come_again(opening: Opening) -> None:
    house = opening(limits(key_burst=3, key_per_s=0.01))
    key, other = house.key("viewer"), house.key("viewer")
    answers = [house.ask("GET", f"{V1}/vehicles", key) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers[:3]] == [
        *("r=2", "r=1", "r=0")
    ]
    problem(answers[-1], 429)
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 100
    assert answers[-1].headers["ratelimit-policy"] == '"key";q=3;w=300'
    assert house.ask("GET", f"{V1}/vehicles", other).status_code == 200


def test_an_address_is_limited_too_and_so_are_its_failures(opening: Opening) -> None:
    house = opening(limits(address_burst=2, address_per_s=0.01))
    assert [house.client.get("/healthz").status_code for _ in range(3)] == [200, 200, 429]
    house = opening(limits(failures_per_minute=2))
    known, new = house.key("viewer"), house.key("viewer")
    assert house.ask("GET", f"{V1}/vehicles", known).status_code == 200
    answers = [house.ask("GET", f"{V1}/vehicles", f"wrong {i}").status_code for i in range(4)]
    assert answers == [401, 401, 429, 429]
    assert house.ask("GET", f"{V1}/vehicles", new).status_code == 429
    assert house.ask("GET", f"{V1}/vehicles", known).status_code == 200  # nobody shuts it out


def test_buckets_fill_up_again_and_are_bounded() -> None:
    buckets = Buckets(Rate(per_s=2.0, burst=2), most=3)
    assert [buckets.take("a", 0.0).wait_s for _ in range(3)] == [0.0, 0.0, 0.5]
    assert buckets.take("a", 0.5).wait_s == 0.0
    assert buckets.take("a", 100.0).left == 1
    for name in "bcde":
        buckets.take(name, 100.0)
    assert len(buckets) == 3


def test_addresses_of_one_ipv6_network_are_one() -> None:
    def of(host: str) -> str:
        return address_of({"client": (host, 1)})

    assert of("2001:db8::1") == of("2001:db8::ffff") != of("2001:db8:0:1::1")
    assert of("10.0.0.1") != of("10.0.0.2")
    assert address_of({}) == "unknown"


def test_a_body_is_bounded_whether_it_says_its_length_or_not(opening: Opening) -> None:
    house = opening(limits(body_bytes=1024))
    headers = {"Authorization": f"Bearer {house.key('admin')}", "Content-Type": "application/json"}
    chunks = (b"[" + b" " * 600 for _ in range(4))
    for content in (b" " * 2000, chunks):
        answer = house.client.post(f"{V1}/api-keys", headers=headers, content=content)
        problem(answer, 413)


def test_what_takes_too_long_is_answered_all_the_same(opening: Opening) -> None:
    house = opening(limits(answer_s=0.2))
    key, until = house.key("viewer"), threading.Event()
    held = replace(house.context, checks={"slow": lambda: None if until.wait(20) else "slow"})
    with serving(held) as client:
        late = client.get("/readyz", headers={"Authorization": f"Bearer {key}"})
        until.set()
    assert "within 0.2 s" in problem(late, 503)["detail"]


def test_every_answer_carries_the_headers_that_browsers_ask_for(house: House) -> None:
    for answer in (
        *(house.client.get(path) for path in ("/healthz", f"{V1}/vehicles", f"{V1}/docs")),
        house.ask("GET", f"{V1}/vehicles", house.key("viewer")),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["ratelimit"]


def test_other_origins_are_let_in_by_name_alone(opening: Opening) -> None:
    house = opening(cors_origins=("https://board.example.com",))
    asked = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "Authorization",
    }
    for origin, let_in in (("https://board.example.com", True), ("https://evil.example", False)):
        headers = asked | {"Origin": origin}
        answer = house.client.options(f"{V1}/vehicles", headers=headers)
        assert (answer.headers.get("access-control-allow-origin") == origin) == let_in
        assert "access-control-allow-credentials" not in answer.headers


def test_without_auth_only_this_machine_is_answered_by_name(house: House) -> None:
    with serving(replace(house.context, entrance=Entrance(None))) as client:
        assert client.get(f"{V1}/vehicles").status_code == 200
        problem(client.get(f"{V1}/vehicles", headers={"Host": "evil.example:80"}), 401)


def test_metrics_have_a_switch_of_their_own(opening: Opening) -> None:
    assert opening().client.get(METRICS).status_code == 401
    assert opening(open_paths=OPEN | {METRICS}).client.get(METRICS).status_code != 401


def test_an_app_that_was_told_nothing_lets_nobody_in(house: House) -> None:
    assert Context(house.context.store, house.context.catalogue, lambda: NOW, {}).entrance is CLOSED
    shown = {"Authorization": f"Bearer {house.key('admin')}"}
    with serving(replace(house.context, entrance=replace(CLOSED))) as client:
        assert client.get(f"{V1}/vehicles", headers=shown).status_code == 401
        assert client.get("/healthz").status_code == 200


def test_a_database_that_does_not_answer_is_no_reason_to_let_anybody_in(house: House) -> None:
    class Broken:
        def known(self, token: str) -> None: ...

        def open(self, token: str) -> Any:
            raise StoreUnavailableError(OSError("disk"))

    with serving(replace(house.context, entrance=Entrance(Broken(), FREE))) as client:
        problem(client.get(f"{V1}/vehicles", headers={"Authorization": "Bearer x"}), 503)
