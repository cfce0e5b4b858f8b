"""Every revision can be computed again to the last byte, and tells what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from cloud.api.provenance_schemas import RevisionAudit
from cloud.audit import record, reproduction
from cloud.audit.reproduction import Reproduction
from cloud.errors import ReproductionError
from cloud.location import PostgresUrl
from cloud.store import battery_orders, roll_back_orders
from cloud.store.audit_tables import RevisionNote
from cloud.store.tables import BatteryOrder, RevisionRow, RollBackOrder
from tests.cloud_doubles import NOW, Insides, write_bundle
from tests.support_chains import tamper


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    """Three vehicles that were calibrated together, each three times; on either database."""
    made = Insides(tmp_path, bundle_path, database)
    for trip in (1, 2, 3):
        cars = [made.car(name) for name in ("a", "b", "c")]
        made.take(
            *(car.breach(trip, 1000.0 * trip + 7 * i, revision=trip - 1)
              for i, car in enumerate(cars))
        )  # fmt: skip
        made.work()
    yield made
    made.store.close()


def reproduced(inside: Insides, row: RevisionRow) -> Reproduction:
    with inside.store.read() as db:
        return reproduction.reproduce(db, inside.catalogue, row)


def audited(inside: Insides, row: RevisionRow) -> RevisionAudit:
    with inside.store.read() as db:
        fresh = db.get(RevisionRow, row.id)
        assert fresh is not None
        return record.of_revision(db, fresh)


def everything(inside: Insides) -> list[RevisionRow]:
    with inside.store.read() as db:
        return list(db.exec(select(RevisionRow)))


def test_what_was_calibrated_in_company_comes_again_alone_to_the_last_byte(
    inside: Insides,
) -> None:
    rows = everything(inside)
    assert len(rows) == 9
    for row in rows:
        found = reproduced(inside, row)
        assert (found.differences, found.warnings) == ([], [])


def test_so_does_what_an_operator_ordered(inside: Insides) -> None:
    inside.take(inside.car("a").status(), inside.car("b").status())
    inside.work()
    with inside.store.write() as db:
        roll_back_orders.place(
            db,
            RollBackOrder(
                vehicle_id="a", to_revision=1, ordered_by="desk", why="odd", ordered_at=NOW
            ),
        )
        battery_orders.place(
            db,
            BatteryOrder(
                vehicle_id="b", odometer=4000.0, ordered_by="shop", why="", ordered_at=NOW
            ),
        )
    inside.worker.wake()
    inside.work()
    kinds = {row.kind: row for row in everything(inside) if row.kind != "breach"}
    assert set(kinds) == {"roll_back", "replacement"}
    for row in kinds.values():
        assert reproduced(inside, row).differences == []


def edit_trace(inside: Insides, old: bytes, new: bytes) -> None:
    """That of the third trip of `a`."""
    third = "vehicle_id = 'a' AND trip_id = 'trip3'"
    with inside.store.read() as db:
        [trace] = db.connection().execute(text(f"SELECT trace FROM breach WHERE {third}")).scalars()
    edit = text(f"UPDATE breach SET trace = :trace WHERE {third}")
    tamper(inside.store.location, edit.bindparams(trace=trace.replace(old, new)))


def test_an_edited_trace_shows_in_what_comes_again(inside: Insides) -> None:
    row = inside.rows("a")[2]
    edit_trace(inside, b"5100", b"5110")
    names = {one.field for one in reproduced(inside, row).differences}
    assert {"theta", "covariance", "cause"} <= names


def test_what_would_be_declined_now_differs_in_its_decision(inside: Insides) -> None:
    row = inside.rows("a")[2]
    edit_trace(inside, b"3.", b"3.0")
    [difference] = reproduced(inside, row).differences
    assert difference.field == "decision"


def test_without_its_breach_or_its_base_it_says_what_is_missing(inside: Insides) -> None:
    row = inside.rows("a")[2]
    tamper(inside.store.location, "DELETE FROM breach WHERE trip_id = 'trip3'")
    with pytest.raises(ReproductionError, match="not kept any more"):
        reproduced(inside, row)
    assert audited(inside, row).message is not None
    assert not audited(inside, row).message.kept  # type: ignore[union-attr]


def test_another_platform_or_version_is_a_warning(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduction, "this_platform", lambda: "another one")
    monkeypatch.setattr("cloud.__version__", "9.9")
    found = reproduced(inside, inside.rows("a")[0])
    assert found.same
    assert len(found.warnings) == 2


def test_a_revision_tells_its_message_its_inputs_and_what_became_of_it(inside: Insides) -> None:
    row = inside.rows("a")[2]
    inside.take(inside.car("a").acknowledgement(row, "applied"))
    inside.take(inside.car("a").acknowledgement(row, "applied"))
    found = audited(inside, row)
    assert (found.approved.by, found.inputs_hold) == ("service", True)
    assert found.message is not None
    assert found.message.trip_id == "trip3"
    assert found.inputs is not None
    assert found.inputs["settings"]["passes"] == 6
    assert found.inputs["running"] == 2
    assert found.innovation is not None
    assert found.innovation.degrees == 40
    assert [note.kind for note in found.history] == ["pushed", "applied"]


def test_every_push_is_noted(inside: Insides) -> None:
    inside.worker.republish(["a"])
    inside.work()
    kinds = [note.kind for note in audited(inside, inside.rows("a")[2]).history]
    assert kinds == ["pushed", "pushed"]


@pytest.mark.parametrize("edit", ["UPDATE revision_note SET at = 0", "DELETE FROM revision_note"])
def test_a_note_is_never_changed(inside: Insides, edit: str) -> None:
    with pytest.raises(IntegrityError, match="append-only"), inside.store.write() as db:
        db.connection().execute(text(edit))
    assert inside.table(RevisionNote)
