"""Webhooks: signed, in order, tried again, given up visibly, and never into private networks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.alerts import sending
from cloud.alerts.carrier import FIRST_RETRY_S, LONGEST_RETRY_S, Carrier, retry_in_s
from cloud.api.access import Context
from cloud.errors import WebhookError
from cloud.store import events, webhooks
from cloud.store.alert_tables import Delivery
from tests.cloud_doubles import Insides, problem, serving, write_bundle
from tests.conftest import ON_BOTH, chosen

V1 = "/api/v1"
LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses that it is given, then with 204; keeps what came."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/hook?a=b"

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 204)
        self.send_header("Location", self.server.url)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(request: pytest.FixtureRequest, tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path, chosen(request))
    yield made
    made.store.close()


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    context = Context(
        inside.store, inside.catalogue, lambda: inside.now, {}, webhook_networks=LOOPBACK
    )
    with serving(context) as made:
        yield made


@pytest.fixture
def carrier(inside: Insides) -> Carrier:
    return Carrier(inside.store, LOOPBACK, lambda: inside.now, random.Random(7))


def hook(client: httpx.Client, url: str, **more: Any) -> dict[str, Any]:
    told = {"url": url, "why": "on-call", "by": "desk", **more}
    answer = client.post(f"{V1}/webhooks", json=told)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def happen(inside: Insides, *kinds: str, **more: Any) -> None:
    with inside.store.write() as db:
        for kind in kinds:
            events.add(db, kind, inside.now, **more)


def states(client: httpx.Client, made: dict[str, Any]) -> list[tuple[str, str, int]]:
    items = client.get(f"{V1}/webhooks/{made['id']}/deliveries").json()["items"]
    return [(one["kind"], one["state"], one["attempts"]) for one in reversed(items)]


def test_a_delivery_is_signed_as_standard_webhooks_says(
    inside: Insides, client: httpx.Client, receiver: Receiver, carrier: Carrier
) -> None:
    made = hook(client, receiver.url, kinds=["alarm."])
    happen(inside, "alarm.raised", vehicle_id="car", cohort="default", detail={"type": "stale"})
    carrier.turn()
    [(headers, body)] = receiver.got
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{wanted}"
    assert int(headers["webhook-timestamp"]) == int(inside.now)
    content = json.loads(body)
    assert (content["type"], content["data"]["vehicle_id"]) == ("alarm.raised", "car")
    assert content["data"]["detail"] == {"type": "stale"}


def test_the_secret_is_shown_once(client: httpx.Client, receiver: Receiver) -> None:
    made = hook(client, receiver.url)
    shown = client.get(f"{V1}/webhooks").text + client.get(f"{V1}/webhooks/{made['id']}").text
    assert made["secret"] not in shown + client.get(f"{V1}/audit").text


def test_only_what_is_wanted_is_carried_and_only_from_now_on(
    inside: Insides, client: httpx.Client, receiver: Receiver, carrier: Carrier
) -> None:
    happen(inside, "alarm.raised", cohort="north")
    hook(client, receiver.url, kinds=["alarm.", "order.done"], cohort="north")
    happen(inside, "alarm.cleared", "order.done", "order.placed", cohort="north")
    happen(inside, "alarm.raised", cohort="south")
    carrier.turn()
    assert receiver.kinds() == ["alarm.cleared", "order.done"]


def test_what_fails_is_tried_again_under_the_same_id_and_the_rest_waits_behind_it(
    inside: Insides, client: httpx.Client, receiver: Receiver, carrier: Carrier
) -> None:
    made = hook(client, receiver.url, kinds=["n."])
    receiver.answers = [500, 302]
    happen(inside, "n.1", "n.2")
    carrier.turn()
    carrier.turn()
    assert receiver.kinds() == ["n.1"]
    assert states(client, made) == [("n.1", "pending", 1), ("n.2", "pending", 0)]
    inside.now += LONGEST_RETRY_S
    carrier.turn()
    inside.now += LONGEST_RETRY_S
    carrier.turn()
    assert receiver.kinds() == ["n.1", "n.1", "n.1", "n.2"]
    assert len({headers["webhook-id"] for headers, _ in receiver.got[:3]}) == 1
    assert states(client, made) == [("n.1", "delivered", 3), ("n.2", "delivered", 1)]


def test_after_a_day_a_delivery_is_given_up_and_seen(
    inside: Insides, client: httpx.Client, carrier: Carrier
) -> None:
    made = hook(client, "http://127.0.0.1:1/nobody", kinds=["n."])
    happen(inside, "n.1")
    carrier.turn()
    for _ in range(30):
        inside.now += LONGEST_RETRY_S
        carrier.turn()
    [item] = client.get(
        f"{V1}/webhooks/{made['id']}/deliveries", params={"state": "given_up"}
    ).json()["items"]
    assert (item["status"], "does not answer" in item["problem"]) == (None, True)
    inside.now += webhooks.KEPT_S + 1.0
    happen(inside, "other")
    carrier.turn()
    assert inside.table(Delivery) == []


def test_a_webhook_that_fails_holds_up_no_other(
    inside: Insides, client: httpx.Client, receiver: Receiver, carrier: Carrier
) -> None:
    hook(client, "http://127.0.0.1:1/nobody", kinds=["n."])
    hook(client, receiver.url, kinds=["n."])
    happen(inside, *(f"n.{i}" for i in range(12)))
    while carrier.turn():
        pass
    assert receiver.kinds() == [f"n.{i}" for i in range(12)]


@ON_BOTH
def test_two_carriers_send_each_event_once(
    inside: Insides, client: httpx.Client, receiver: Receiver, carrier: Carrier
) -> None:
    hook(client, receiver.url, kinds=["n."])
    happen(inside, *(f"n.{i}" for i in range(20)))
    other = Carrier(inside.store, LOOPBACK, lambda: inside.now, random.Random(8))

    def run(one: Carrier) -> None:
        for _ in range(20):
            one.turn()

    threads = [threading.Thread(target=run, args=[one]) for one in (carrier, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert receiver.kinds() == [f"n.{i}" for i in range(20)]


@ON_BOTH
def test_a_carrier_that_was_killed_gives_its_lease_back_in_time(
    inside: Insides, client: httpx.Client, receiver: Receiver, carrier: Carrier
) -> None:
    hook(client, receiver.url, kinds=["n."])
    happen(inside, "n.1")
    with inside.store.write() as db:
        webhooks.lease(db, inside.now)
    carrier.turn()
    assert receiver.got == []
    inside.now += webhooks.LEASE_S
    carrier.turn()
    assert receiver.kinds() == ["n.1"]


def test_a_deleted_webhook_is_told_nothing_more(
    inside: Insides, client: httpx.Client, receiver: Receiver, carrier: Carrier
) -> None:
    made = hook(client, receiver.url)
    happen(inside, "n.1")
    path = f"{V1}/webhooks/{made['id']}"
    assert client.delete(path, params={"why": "moved"}).status_code == 204
    problem(client.delete(path, params={"why": "moved"}), 404)
    carrier.turn()
    assert receiver.got == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest", "http://1.1.1.1/",
        "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[fd00::1]/", "https://0.0.0.0/",
        "ftp://example.org/", "https://user:pw@example.org/", "file:///etc/passwd", "nonsense",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(inside: Insides, url: str) -> None:
    with serving(Context(inside.store, inside.catalogue, lambda: inside.now, {})) as client:
        told = {"url": url, "why": "?"}
        assert "body.url" in problem(client.post(f"{V1}/webhooks", json=told), 422)["detail"]


def test_a_name_that_leads_into_a_private_network_is_not_connected_to(receiver: Receiver) -> None:
    port = receiver.server_address[1]
    secret = sending.new_secret()
    with pytest.raises(WebhookError, match="no public address"):
        sending.post(f"https://localhost:{port}/", secret, "evt_1", b"{}", 0.0, [])
    assert receiver.got == []


def test_a_webhook_can_be_tried_without_being_made(
    client: httpx.Client, receiver: Receiver
) -> None:
    told = {"url": receiver.url, "why": "?"}
    assert client.post(f"{V1}/webhooks?dry_run=true", json=told).status_code == 201
    assert client.get(f"{V1}/webhooks").json()["items"] == []


def test_pauses_grow_and_are_never_the_same_for_all() -> None:
    rng = random.Random(1)
    pauses = [[retry_in_s(n, rng) for _ in range(50)] for n in range(20)]
    for n, drawn in enumerate(pauses):
        longest = min(FIRST_RETRY_S * 2**n, LONGEST_RETRY_S)
        assert longest / 2 <= min(drawn) < max(drawn) <= longest
