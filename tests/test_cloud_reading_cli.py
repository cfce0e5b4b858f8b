"""`twin-cloud vehicles`, `trips`, … over the API of a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.api.access import Context
from tests.cloud_doubles import NOW, Insides, serving, write_bundle
from tests.support_command_line import twin_cloud


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`a` has five trips and two revisions."""
    folder = tmp_path_factory.mktemp("cli")
    inside = Insides(folder, write_bundle(folder / "bundle"))
    a = inside.car("a")
    inside.take(*(a.trip(n) for n in range(1, 6)), a.status(), inside.car("b").status())
    for trip in (2, 4):
        inside.take(a.breach(trip))
        inside.work()
    with serving(Context(inside.store, inside.catalogue, lambda: NOW, {})) as client:
        yield str(client.base_url)
    inside.store.close()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("vehicles", "--sort=-drift"), ["vehicle_id", "learning"]),
        (("vehicles", "--filter", "vehicle_id__startswith=b"), ["b"]),
        (("trips", "a", "--limit", "2"), ["trip5", "trip4"]),
        (("trace", "a", "trip4"), ["measured_v", "recalibrated_v"]),
        (("revisions", "a"), ["breach", "error_after_v"]),
        (("parameters", "gain_distance", "--vehicle", "a"), ["band95_lower"]),
        (("parameters", "gain_distance", "--filter", "vehicles=1"), ["band95_lower"]),
        (("diff", "a", "1", "2"), ["gain_distance", "significant"]),
        (("summary",), ["vehicles_online"]),
        (("events", "--limit", "3"), ["kind"]),
        (("breaches", "a"), ["calibrated", "brought"]),
        (("what-if", "a", "--at", "distance_km=0", "--until", "50"), ["remaining", "asked"]),
        (("what-if", "--cohort", "default", "--at", "distance_km=0"), ["a", "b"]),
    ],
)
def test_a_command_shows_a_table_for_people_and_json_for_programs(
    server: str,
    words: tuple[str, ...],
    shown: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = twin_cloud(monkeypatch, capsys, *words, "--server", server)
    assert code == 0
    assert all(word in out for word in shown) or "nothing" in out
    code, out, _ = twin_cloud(monkeypatch, capsys, *words, "--server", server, "--json")
    assert code == 0
    json.loads(out)


def test_a_list_is_exported_to_a_file(
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "trips.csv"
    words = ("export", "trips", "--vehicle", "a", "--out", out, "--server", server)
    assert twin_cloud(monkeypatch, capsys, *words)[0] == 0
    assert len(out.read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("trips", "nobody"), 3, "no vehicle 'nobody'"),
        (("vehicles", "--filter", "colour=red"), 2, "query.colour"),
        (("vehicles", "--filter", "colour"), 2, "NAME=VALUE"),
        (("export", "trips"), 2, "--vehicle"),
        (("what-if", "a", "--at", "distance_km=far"), 2, "FEATURE=VALUE"),
        (("what-if", "--at", "distance_km=0"), 2, "--cohort"),
        (("export", "colours"), 2, "colours"),
    ],
)
def test_what_the_service_refuses_ends_with_its_sentence_and_an_exit_code(
    server: str,
    words: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, out, err = twin_cloud(monkeypatch, capsys, *words, "--server", server)
    assert (found, out) == (code, "")
    assert said in err


def test_no_service_is_exit_code_5_and_no_key_file_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = twin_cloud(monkeypatch, capsys, "vehicles", "--server", "http://127.0.0.1:9")
    assert (code, "does not answer" in err) == (5, True)
    missing = tmp_path / "key"
    assert twin_cloud(monkeypatch, capsys, "vehicles", "--key-file", missing)[0] == 1
