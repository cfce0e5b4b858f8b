"""Lineage as W3C PROV: structure as PROV-JSON wants it, and what it says is what is signed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cloud.api.access import Context
from cloud.audit import drawing, lineage, prov
from cloud.audit.lineage import Node
from cloud.store import recalibration_orders, revisions
from cloud.store.audit_tables import RecalibrationOrder
from tests.cloud_doubles import NOW, Insides, serving, write_bundle

# PROV-JSON, section 3: what each relation must name, and of which kind that is.
RELATIONS = {
    "wasGeneratedBy": {"prov:entity": "entity", "prov:activity": "activity"},
    "used": {"prov:activity": "activity", "prov:entity": "entity"},
    "wasDerivedFrom": {
        "prov:generatedEntity": "entity",
        "prov:usedEntity": "entity",
        "prov:activity": "activity",
    },
    "wasAssociatedWith": {"prov:activity": "activity", "prov:agent": "agent"},
    "wasAttributedTo": {"prov:entity": "entity", "prov:agent": "agent"},
}
WHY = '<b>a "late" backlog & more</b>'


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Insides]:
    """Three revisions, and a replay from the first on with a breach that had come too late."""
    folder = tmp_path_factory.mktemp("lineage")
    made = Insides(folder, write_bundle(folder / "tiny"))
    made.take(made.car().status())
    for running, trip in enumerate((1, 3, 5, 2)):
        made.take(made.car().breach(trip, revision=min(running, 3)))
        made.work()
    order = RecalibrationOrder(
        vehicle_id="car", from_revision=1, ordered_by="fleet desk", why=WHY, ordered_at=NOW
    )
    with made.store.write() as db:
        recalibration_orders.place(db, order)
    made.worker.wake()
    made.work()
    yield made
    made.store.close()


@pytest.fixture
def nodes(inside: Insides) -> list[Node]:
    with inside.store.read() as db:
        return lineage.lineage(revisions.all_of(db, "car"))


def ids(document: dict[str, Any], kind: str) -> set[str]:
    return set(document.get(kind, {}))


def test_every_relation_names_what_is_declared(nodes: list[Node]) -> None:
    document = prov.prov_json("car", nodes)
    assert set(document) <= {"prefix", "entity", "activity", "agent", *RELATIONS}
    assert "twin" in document["prefix"]
    for kind, ends in RELATIONS.items():
        assert document[kind]
        for name, relation in document[kind].items():
            assert name.startswith("_:")
            for end, of in ends.items():
                assert relation[end] in ids(document, of), (kind, name)
    for of in ("entity", "activity", "agent"):
        assert all(name.startswith("twin:") for name in ids(document, of))


def test_what_was_derived_from_what_is_what_the_signed_contents_say(nodes: list[Node]) -> None:
    found = {
        (one["prov:usedEntity"], one["prov:generatedEntity"])
        for one in prov.prov_json("car", nodes)["wasDerivedFrom"].values()
    }
    assert found == {
        (f"twin:car/revision/{base}", f"twin:car/revision/{number}")
        for base, number in lineage.edges(nodes)
    }


def test_a_replay_is_a_branch_of_its_own(nodes: list[Node]) -> None:
    assert [node.branch for node in nodes[:3]] == [0, 0, 0]
    assert {node.branch for node in nodes[3:]} == {1}


def test_the_picture_is_well_formed_whatever_somebody_wrote(nodes: list[Node]) -> None:
    root = ET.fromstring(drawing.svg("car", nodes))  # our own
    circles = root.findall("{http://www.w3.org/2000/svg}circle")
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(circles) == len(nodes)
    assert any(WHY in text for text in texts)
    graph = prov.dot("car", nodes)
    assert graph.count(" -> ") == len(list(lineage.edges(nodes)))


def test_the_api_gives_both(inside: Insides) -> None:
    context = Context(inside.store, inside.catalogue, lambda: inside.now, {})
    with serving(context) as http:
        told = http.get("/api/v1/vehicles/car/lineage", timeout=60.0)
        picture = http.get("/api/v1/vehicles/car/lineage?format=svg", timeout=60.0)
        past = http.get("/api/v1/vehicles/car/revisions/4/audit", timeout=60.0).json()
    assert told.json()["entity"]
    assert picture.headers["content-type"] == "image/svg+xml"
    assert (past["kind"], past["approved"]["by"]) == ("recalibration", "fleet desk")
