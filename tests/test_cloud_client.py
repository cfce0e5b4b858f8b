"""The typed client: every operation, pages as iterators, problems as exceptions, retries."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cloud.api.access import Context
from cloud.api.app import create_app
from cloud.api.schemas import RollBack
from cloud.client import TwinClient
from cloud.client.errors import (
    ContradictionError,
    NotAllowedError,
    NotThereError,
    ProblemAnswerError,
    ServiceUnreachableError,
    WrongQuestionError,
)
from tests.cloud_doubles import Insides, serving, write_bundle


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """Three cars; the first has four trips and a revision."""
    folder = tmp_path_factory.mktemp("client")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    for name in ("a", "b", "c"):
        inside.take(inside.car(name).status())
    a = inside.car("a")
    inside.take(*(a.trip(number) for number in range(1, 5)), a.breach(4))
    inside.work()
    yield inside
    inside.store.close()


@pytest.fixture(scope="module")
def twin(inside: Insides) -> Iterator[TwinClient]:
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {})
    with serving(context) as http, TwinClient(str(http.base_url), http=http) as twin:
        yield twin


def scripted(
    *answers: httpx.Response | Exception,
) -> tuple[TwinClient, list[httpx.Request], list[float]]:
    """A client whose server gives these answers in turn; what it asked, and how long it waited."""
    asked: list[httpx.Request] = []
    waited: list[float] = []
    left = iter(answers)

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = httpx.Client(transport=httpx.MockTransport(handle))
    return TwinClient("http://twin", "tw_key", http=http, sleep=waited.append), asked, waited


def test_the_client_has_a_method_for_each_operation_and_asks_its_address() -> None:
    context: Any = None  # the description asks nothing of a database
    paths = create_app(context).openapi()["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            asked = call(operation["operationId"])
            assert asked.method == method.upper(), path
            pattern = re.sub(r"\{\w+\}", "[^/]+", path)
            assert re.fullmatch(pattern, asked.url.path), (path, asked.url)


def call(name: str) -> httpx.Request:
    """The request that a method of the client makes."""
    twin, asked, _ = scripted(httpx.Response(404))
    method = getattr(twin, name)
    arguments = [
        stand_in(one)
        for one in inspect.signature(method).parameters.values()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    ]
    with pytest.raises(NotThereError):
        consume(method(*arguments))
    return asked[0]


def stand_in(parameter: inspect.Parameter) -> Any:
    """An argument that goes into an address or a body."""
    if parameter.annotation in {"str", "int"}:
        return 7
    return RollBack(by="x", to=1, why="y")


def consume(answer: Any) -> None:
    if inspect.isgenerator(answer):
        list(answer)


def test_a_list_is_an_iterator_over_all_its_pages(twin: TwinClient) -> None:
    assert [trip.trip_id for trip in twin.list_trips("a", limit=1)] == [
        "trip4",
        "trip3",
        "trip2",
        "trip1",
    ]
    assert [vehicle.vehicle_id for vehicle in twin.list_vehicles(limit=2)] == ["a", "b", "c"]


def test_a_resource_comes_as_the_servers_own_type(twin: TwinClient) -> None:
    vehicle = twin.get_vehicle("a")
    assert (vehicle.trips, vehicle.first_seen_at.tzinfo is not None) == (4, True)
    assert twin.get_revision("a", 1).parameters[0].name == "gain_distance"


def test_a_problem_is_an_exception_that_keeps_it(twin: TwinClient) -> None:
    with pytest.raises(NotThereError) as missing:
        twin.get_vehicle("nobody")
    assert missing.value.problem["instance"] == "/api/v1/vehicles/nobody"
    with pytest.raises(WrongQuestionError) as wrong:
        list(twin.list_vehicles(colour="red"))
    assert wrong.value.problem["violations"][0]["where"] == "query.colour"
    with pytest.raises(ContradictionError):
        twin.roll_back("b", RollBack(by="desk", to=9, why="?"))


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, NotAllowedError), (403, NotAllowedError), (500, ProblemAnswerError)],
)
def test_an_answer_that_is_no_problem_document_is_an_exception_too(
    status: int, kind: type[Exception]
) -> None:
    twin, _, waited = scripted(httpx.Response(status, text="<html>"))
    with pytest.raises(kind):
        twin.get_vehicle("a")
    assert waited == []


def test_the_key_goes_with_every_request() -> None:
    twin, asked, _ = scripted(httpx.Response(200, json={"status": "ok"}))
    twin.alive()
    assert asked[0].headers["authorization"] == "Bearer tw_key"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_service_is_asked_again_when_it_says(status: int) -> None:
    busy = httpx.Response(status, headers={"Retry-After": "7"})
    twin, asked, waited = scripted(
        busy, httpx.Response(status), httpx.Response(200, json={"status": "ok"})
    )
    assert twin.alive().status == "ok"
    assert (len(asked), waited) == (3, [7.0, 1.0])


def test_a_service_that_stays_busy_is_left_alone() -> None:
    twin, asked, _ = scripted(*(httpx.Response(503) for _ in range(9)))
    with pytest.raises(ProblemAnswerError):
        twin.alive()
    assert len(asked) == 5


def test_what_changes_nothing_by_name_is_not_repeated_without_a_key() -> None:
    twin, asked, _ = scripted(httpx.Response(503), httpx.Response(503))
    with pytest.raises(ProblemAnswerError):
        twin.send("POST", "/api/v1/anything")
    assert len(asked) == 1


def test_an_order_is_repeated_under_its_key() -> None:
    twin, asked, _ = scripted(httpx.Response(503), httpx.Response(404))
    with pytest.raises(NotThereError):
        twin.roll_back("a", RollBack(to=1, why="?"))
    first, second = (request.headers["Idempotency-Key"] for request in asked)
    assert first == second


def test_no_service_is_an_error_of_its_own() -> None:
    twin, _, _ = scripted(httpx.ConnectError("refused"))
    with pytest.raises(ServiceUnreachableError, match="http://twin"):
        twin.alive()
