"""Lists as files, conditional answers, HEAD: what a client may ask for beside plain JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pyarrow.parquet as pq
import pytest

from cloud.api import paging
from cloud.api.access import Context
from cloud.api.export import chosen
from cloud.intake.interpretation import Delivery
from tests.cloud_doubles import NOW, Insides, problem, serving, write_bundle

V1 = "/api/v1"
TRIPS = f"{V1}/vehicles/a/trips"
LISTS = (
    f"{V1}/vehicles",
    TRIPS,
    f"{V1}/vehicles/a/revisions",
    f"{V1}/vehicles/a/provisionals",
    f"{V1}/quarantine",
    f"{V1}/events",
    f"{V1}/audit",
)
WHOLE = [f"trip{number}" for number in range(7, 0, -1)]
FORMULA = '=HYPERLINK("http://example.invalid")'


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """`a` with seven trips, a revision and a provisional; a topic that a spreadsheet would run."""
    folder = tmp_path_factory.mktemp("export")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    a = inside.car("a")
    inside.take(*(a.trip(n) for n in range(1, 8)), a.status(), a.provisional(1), a.breach(7))
    inside.work()
    inside.take(Delivery(FORMULA, b"x", mid=1))
    yield inside
    inside.store.close()


@pytest.fixture(scope="module")
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(Context(inside.store, inside.catalogue, lambda: NOW, {})) as client:
        yield client


@pytest.fixture
def pages_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "EXPORT_PAGE", 2)


def rows_of(response: httpx.Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(response.text)))


@pytest.mark.parametrize("path", LISTS)
def test_every_list_is_the_same_in_every_format(client: httpx.Client, path: str) -> None:
    items = client.get(path, params={"limit": 500}).json()["items"]
    lines = client.get(path, params={"format": "ndjson"}).text.splitlines()
    assert [msgspec.json.decode(line) for line in lines] == items
    as_csv = client.get(path, params={"format": "csv"})
    table = pq.read_table(io.BytesIO(client.get(path, params={"format": "parquet"}).content))
    assert len(rows_of(as_csv)) == table.num_rows == len(items)
    assert as_csv.text.splitlines()[0].split(",") == table.column_names


@pytest.mark.usefixtures("pages_of_two")
@pytest.mark.parametrize("name", ["csv", "ndjson", "parquet"])
def test_a_file_is_the_whole_list_and_has_a_name(client: httpx.Client, name: str) -> None:
    response = client.get(TRIPS, params={"format": name})
    assert response.headers["content-disposition"] == (
        f'attachment; filename="vehicles-a-trips.{name}"'
    )
    assert "cut" not in response.text
    if name == "csv":
        assert [row["trip_id"] for row in rows_of(response)] == WHOLE
    elif name == "ndjson":
        assert len(response.text.splitlines()) == 7
    else:
        table = pq.read_table(io.BytesIO(response.content))
        assert table["trip_id"].to_pylist() == WHOLE
        assert str(table.schema.field("started_at").type) == "timestamp[us, tz=UTC]"


@pytest.mark.usefixtures("pages_of_two")
def test_where_a_file_was_cut_off_it_says_so_and_how_to_go_on(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MOST_EXPORTED", 3)
    lines = client.get(TRIPS, params={"format": "ndjson"}).text.splitlines()
    mark = msgspec.json.decode(lines[-1])
    assert (len(lines), mark["cut_off"]) == (4, True)
    rest = client.get(TRIPS, params={"cursor": mark["next"]}).json()["items"]
    assert [one["trip_id"] for one in rest] == ["trip4", "trip3", "trip2", "trip1"]
    last = client.get(TRIPS, params={"format": "csv"}).text.splitlines()[-1]
    assert last == f"# cut off here; go on with cursor={mark['next']}"
    content = client.get(TRIPS, params={"format": "parquet"}).content
    metadata: Any = pq.read_metadata(io.BytesIO(content)).metadata
    assert (metadata[b"cut_off"], metadata[b"next"].decode()) == (b"true", mark["next"])


def test_a_file_of_a_few_rows_is_cut_off_there(client: httpx.Client) -> None:
    lines = client.get(TRIPS, params={"format": "csv", "limit": 2}).text.splitlines()
    assert len(lines) == 4
    assert lines[-1].startswith("# cut off here")


def test_a_text_that_a_spreadsheet_would_run_is_no_formula(client: httpx.Client) -> None:
    row = rows_of(client.get(f"{V1}/quarantine", params={"format": "csv"}))[0]
    assert row["topic"] == "'" + FORMULA
    assert row["reason"].startswith("'")


def test_what_stands_inside_an_item_is_spread_over_columns(client: httpx.Client) -> None:
    row = rows_of(client.get(f"{V1}/vehicles/a/revisions", params={"format": "csv"}))[0]
    assert (row["cause_kind"], row["cause_trip_id"], row["verdict"]) == ("breach", "trip7", "")
    trip = rows_of(client.get(TRIPS, params={"format": "csv"}))[0]
    assert msgspec.json.decode(trip["feature_means"]) == {"distance_km": 160.0, "load_kg": 5100.0}
    assert (trip["breach"], trip["started_at"]) == ("false", "2026-09-21T14:13:20Z")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("text/*", "csv"),
        ("application/json;q=0.5, text/csv", "csv"),
        ("text/html, application/xhtml+xml, */*;q=0.8", "json"),
        ("application/x-ndjson", "ndjson"),
        ("image/png", None),
        ("text/csv;q=0", None),
        ("text/csv;q=much", None),
        ("", "json"),
    ],
)
def test_the_accept_header_chooses_the_format(accept: str | None, expected: str | None) -> None:
    assert chosen(None, accept) == expected


def test_the_question_goes_before_the_header_and_what_nobody_takes_is_a_406(
    client: httpx.Client,
) -> None:
    both = client.get(TRIPS, params={"format": "ndjson"}, headers={"Accept": "text/csv"})
    assert both.headers["content-type"] == "application/x-ndjson"
    by_header = client.get(TRIPS, headers={"Accept": "text/csv"})
    assert by_header.headers["content-type"] == "text/csv; charset=utf-8"
    problem(client.get(TRIPS, headers={"Accept": "image/png"}), 406)
    problem(client.get(TRIPS, params={"format": "xlsx"}), 422)


def test_a_wrong_cursor_is_a_problem_and_no_file(client: httpx.Client) -> None:
    problem(client.get(TRIPS, params={"format": "csv", "cursor": "x"}), 422)
    problem(client.get(f"{V1}/vehicles/zz/trips", params={"format": "csv"}), 404)


@pytest.mark.parametrize("path", [*LISTS, f"{V1}/vehicles/a", f"{V1}/vehicles/a/revisions/1"])
def test_what_a_client_has_is_not_sent_again(client: httpx.Client, path: str) -> None:
    first = client.get(path)
    etag = first.headers["etag"]
    for known in (etag, f'"other", W/{etag}', "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content


def test_a_vehicle_has_the_same_etag_while_only_time_passes(inside: Insides) -> None:
    clock = iter([NOW, NOW + 60])
    times: list[float] = []

    def now() -> float:
        return times[-1]

    with serving(Context(inside.store, inside.catalogue, now, {})) as client:
        answers = []
        for moment in clock:
            times.append(moment)
            answers.append(client.get(f"{V1}/vehicles/a"))
    ages = [answer.json()["last_seen_age_s"] for answer in answers]
    assert ages[1] - ages[0] == 60
    assert answers[0].headers["etag"] == answers[1].headers["etag"]


@pytest.mark.parametrize("path", [TRIPS, f"{V1}/vehicles/a", f"{V1}/vehicles/zz", "/health/live"])
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    assert head.headers.get("etag") == get.headers.get("etag")


def test_the_docs_are_one_page_that_loads_nothing(client: httpx.Client) -> None:
    page = client.get(f"{V1}/docs")
    assert "/api/v1/vehicles/{vehicle_id}/trips" in page.text
    assert "<script" not in page.text
    assert "src=" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha")
