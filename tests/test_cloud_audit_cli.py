"""`twin-cloud audit`, `reproduce`, `lineage`, `heads export`, `recalibrate`, `pin`, `unpin`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.audit.head_keeper import HeadKeeper
from cloud.calibration.revising import Author
from cloud.store.audit_tables import Pin, RecalibrationOrder
from common.revision import decode_revision
from demo.roles import write_config
from tests.cloud_doubles import Insides, write_bundle
from tests.support_chains import tamper
from tests.support_command_line import twin_cloud

Run = Callable[..., tuple[int, str, str]]
WHO = ("--by", "desk", "--why", "a gap")


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    """A vehicle with revisions at 1000 and 3000 km; a breach at 2000 km came too late."""
    made = Insides(tmp_path, bundle_path)
    made.take(made.car().status())
    for number, trip in enumerate((1, 3, 2)):
        made.take(made.car().breach(trip, revision=min(number, 2)))
        made.work()
    yield made
    made.store.close()


@pytest.fixture
def config(inside: Insides, tmp_path: Path, bundle_path: Path) -> Path:
    return write_config(
        tmp_path, broker_port=1, store=str(inside.path), bundle=bundle_path, key=tmp_path / "key"
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *words: twin_cloud(monkeypatch, capsys, *words)


def carried_out(inside: Insides) -> None:
    inside.worker.wake()
    inside.work()


def test_a_revision_is_shown_with_its_past(inside: Insides, run: Run) -> None:
    code, out, _ = run("audit", "car", 2, "--database", inside.path)
    assert (code, "innovation.nis" in out, "trip3" in out) == (0, True, True)
    code, out, _ = run("audit", "car/2", "--database", inside.path, "--json")
    told = json.loads(out)
    assert (code, told["number"], told["inputs_hold"]) == (0, 2, True)
    assert [note["kind"] for note in told["history"]] == ["pushed"]


@pytest.mark.parametrize("command", ["audit", "reproduce"])
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("car", 9), 3, "no revision 9 of vehicle 'car'"),
        (("car/9",), 3, "no revision 9 of vehicle 'car'"),
        (("car",), 2, "names no revision"),
        (("car/two",), 2, "names no revision"),
    ],
)
def test_what_is_not_there_is_said(
    inside: Insides, config: Path, run: Run, command: str, words: tuple[Any, ...], code: int,
    said: str,
) -> None:  # fmt: skip
    place = ("--database", inside.path) if command == "audit" else ("--config", config)
    ended, out, err = run(command, *words, *place)
    assert (ended, out) == (code, "")
    assert said in err


def test_reproduce_says_which_byte_differs(inside: Insides, config: Path, run: Run) -> None:
    code, out, _ = run("reproduce", "car", 2, "--config", config)
    assert (code, "the same to the last byte" in out) == (0, True)
    code, out, _ = run("reproduce", "car/2", "--config", config, "--json")
    assert (code, json.loads(out)["same"]) == (0, True)
    tamper(
        inside.path,
        "UPDATE breach SET trace = CAST(replace(trace, '5100', '5110') AS BLOB) "
        "WHERE trip_id = 'trip3'",
    )
    code, out, _ = run("reproduce", "car", 2, "--config", config)
    assert (code, "theta" in out) == (1, True)
    code, out, _ = run("reproduce", "car", 2, "--config", config, "--json")
    assert code == 1
    assert "theta" in {one["field"] for one in json.loads(out)["differences"]}
    tamper(inside.path, "DELETE FROM breach WHERE trip_id = 'trip3'")
    code, out, err = run("reproduce", "car", 2, "--config", config)
    assert (code, out, "not kept any more" in err) == (1, "", True)


def test_lineage_is_prov_a_graph_or_a_picture(inside: Insides, run: Run) -> None:
    code, out, _ = run("lineage", "car", "--database", inside.path)
    assert (code, "wasDerivedFrom" in json.loads(out)) == (0, True)
    code, out, _ = run("lineage", "car", "--format", "dot", "--database", inside.path)
    assert (code, out.startswith("digraph")) == (0, True)
    code, out, _ = run("lineage", "car", "--format", "svg", "--database", inside.path)
    assert (code, out.startswith("<svg"), out.endswith("</svg>\n")) == (0, True, True)
    code, _, err = run("lineage", "nobody", "--database", inside.path)
    assert (code, "nobody" in err) == (3, True)


def test_heads_are_exported_and_the_history_verified_against_them(
    inside: Insides, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "heads"
    code, _, err = run("heads", "export", folder, "--database", inside.path)
    assert (code, "signed no statement yet" in err) == (3, True)
    HeadKeeper(inside.store, Author(inside.key, "0.1.0"), lambda: inside.now).make()
    code, out, err = run("heads", "export", folder, "--database", inside.path)
    assert (code, out, err) == (0, "", f"1 statements are in {folder}.\n")
    verify = ("verify", "--database", inside.path, "--heads", folder)
    assert run(*verify)[0] == 0
    tamper(inside.path, "DELETE FROM revision WHERE number = 2", "DELETE FROM breach")
    assert run("verify", "--database", inside.path)[0] == 1  # the database's own statement
    code, out, _ = run(*verify, "--json")
    assert (code, json.loads(out)[0]["first_broken_revision"]) == (1, 2)


def test_a_rehearsal_shows_what_a_recalibration_would_bring_and_orders_nothing(
    inside: Insides, config: Path, run: Run
) -> None:
    words = ("recalibrate", "car", "--from", 1, *WHO, "--config", config)
    code, out, err = run(*words, "--dry-run", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [(one["trip_id"], one["would_bring"]) for one in told] == [
        ("trip2", "a revision"), ("trip3", "a revision"),
    ]  # fmt: skip
    assert all(one["error_then_v"] < 0.03 for one in told)
    assert "trip2" in run(*words, "--dry-run")[1]
    assert inside.table(RecalibrationOrder) == []
    assert len(inside.rows()) == 2
    assert run(*words)[0] == 0
    carried_out(inside)
    made = [decode_revision(row.content) for row in inside.rows()[2:]]
    assert [one.theta for one in made] == [one["theta"] for one in told]


def test_a_pin_is_set_and_ended(inside: Insides, config: Path, run: Run) -> None:
    code, out, err = run("pin", "car", "--to", 1, *WHO, "--config", config)
    assert (code, out, "Pinned to revision 1" in err) == (0, "", True)
    carried_out(inside)
    assert decode_revision(inside.rows()[-1].content).cause.returns_to == 1
    refused = {
        "it is pinned to revision 1 by desk already": ("pin", "car", "--to", 2),
        "it is pinned; end that first": ("recalibrate", "car", "--from", 1),
    }
    for said, words in refused.items():
        code, _, err = run(*words, *WHO, "--config", config)
        assert (code, said in err) == (4, True)
    roll_back = ("roll-back", "car", "--to", 2, *WHO, "--database", inside.path)
    code, _, err = run(*roll_back)
    assert (code, "pinned" in err) == (4, True)
    assert run("unpin", "car", *WHO, "--config", config)[0] == 0
    [pin] = inside.table(Pin)
    assert (pin.ended_by, pin.ended_why) == ("desk", "a gap")
    code, _, err = run("unpin", "car", *WHO, "--config", config)
    assert (code, "it is not pinned" in err) == (4, True)
    assert run(*roll_back)[0] == 0


@pytest.mark.parametrize("words", [("recalibrate", "--from", 1), ("pin", "--to", 1), ("unpin",)])
def test_a_vehicle_that_nobody_knows_gets_no_order(
    config: Path, run: Run, words: tuple[Any, ...]
) -> None:
    command, *more = words
    code, _, err = run(command, "nobody", *more, *WHO, "--config", config)
    assert (code, "no vehicle 'nobody'" in err) == (3, True)
