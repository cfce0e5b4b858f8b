"""The registry of bundles: what there is, who runs it, and one more that was tried first."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.api.access import Context
from cloud.api.authority import Actor
from cloud.location import PostgresUrl
from cloud.store.tables import BundleFiles, Vehicle
from common.bundle import load_bundle
from tests.cloud_doubles import Insides, problem, serving, write_bundle
from tests.test_edge_cli import ENVIRONMENT

V1 = "/api/v1"


@pytest.fixture
def inside(tmp_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    """Two vehicles on the configured bundle; `north` has one of them."""
    made = Insides(tmp_path, write_bundle(tmp_path / "bundle"), database)
    made.take(made.car("car").status(), made.car("van").status())
    with made.store.write() as db:
        van = db.get(Vehicle, "van")
        assert van is not None
        van.cohort = "north"
    yield made
    made.store.close()


def context_of(inside: Insides) -> Context:
    return Context(inside.store, inside.catalogue, lambda: inside.now, {})


@pytest.fixture
def client(inside: Insides) -> Iterator[httpx.Client]:
    with serving(context_of(inside)) as made:
        yield made


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "new", "next")


def upload(folder: Path, **changes: bytes) -> dict[str, Any]:
    files = {
        "manifest": (folder / "manifest.json").read_bytes(),
        "model": (folder / "voltage_model.tflite").read_bytes(),
    }
    encoded = {name: base64.b64encode(raw).decode() for name, raw in (files | changes).items()}
    return {**encoded, "why": "winter trips", "by": "lab"}


def test_a_bundle_is_uploaded_shown_and_kept_byte_for_byte(
    inside: Insides, client: httpx.Client, new: Path
) -> None:
    answer = client.post(f"{V1}/bundles", json=upload(new))
    assert answer.status_code == 201
    bundle = load_bundle(new)
    assert answer.headers["location"].endswith(bundle.sha256)
    shown = client.get(answer.headers["location"]).json()
    assert shown == answer.json()
    assert (shown["name"], shown["added_by"], shown["why"]) == ("next", "lab", "winter trips")
    assert (shown["kept"], shown["configured"], shown["vehicles"]) == (True, False, 0)
    assert shown["manifest"]["cutoff_voltage_v"] == 3.1
    [files] = inside.table(BundleFiles)
    assert files.model == bundle.model
    assert files.manifest == (new / "manifest.json").read_bytes()
    [event] = client.get(f"{V1}/audit", params={"kind": "bundle.added"}).json()["items"]
    assert (event["actor"], event["detail"]["bundle"]) == ("lab", bundle.sha256)


def test_the_same_bundle_again_changes_nothing(
    inside: Insides, client: httpx.Client, new: Path
) -> None:
    client.post(f"{V1}/bundles", json=upload(new))
    again = client.post(f"{V1}/bundles", json=upload(new) | {"by": "other"})
    assert (again.status_code, again.json()["added_by"]) == (200, "lab")
    assert len(inside.table(BundleFiles)) == 1


def test_a_dry_run_tries_a_bundle_and_keeps_nothing(
    inside: Insides, client: httpx.Client, new: Path
) -> None:
    answer = client.post(f"{V1}/bundles", params={"dry_run": True}, json=upload(new))
    assert (answer.status_code, answer.headers["dry-run"]) == (201, "true")
    assert not inside.table(BundleFiles)


def test_the_list_has_configured_and_kept_ones_with_their_vehicles(
    inside: Insides, client: httpx.Client, new: Path
) -> None:
    client.post(f"{V1}/bundles", json=upload(new))
    first, second = client.get(f"{V1}/bundles").json()["items"]
    assert (first["name"], first["vehicles"], first["configured"]) == ("next", 0, False)
    assert (second["sha256"], second["vehicles"]) == (inside.bundle.sha256, 2)
    assert (second["configured"], second["kept"], second["added_at"]) == (True, False, None)
    assert [one["name"] for one in second["features"]] == ["distance_km", "load_kg"]
    assert second["parameters"] == ["gain_distance", "offset_output"]


def test_who_has_a_cohort_counts_its_vehicles_alone_and_adds_nothing(
    inside: Insides, new: Path
) -> None:
    actor = Actor("norse", "admin", frozenset({"north"}))
    with serving(context_of(inside), actor) as client:
        [item] = client.get(f"{V1}/bundles").json()["items"]
        assert item["vehicles"] == 1
        problem(client.post(f"{V1}/bundles", json=upload(new)), 403)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": b"TFL3 no model"}, "not the one that its manifest names"),
        ({"manifest": b"{}"}, "schema"),
        ({"manifest": b"\xff\xfe"}, "manifest"),
    ],
)
def test_what_is_no_bundle_is_refused_with_its_reason(
    inside: Insides, client: httpx.Client, new: Path, changes: dict[str, bytes], told: str
) -> None:
    found = problem(client.post(f"{V1}/bundles", json=upload(new, **changes)), 422)
    assert told in found["detail"]
    assert not inside.table(BundleFiles)


def test_a_truncated_model_under_its_own_hash_is_refused(
    client: httpx.Client, new: Path, inside: Insides
) -> None:
    """As a vehicle would refuse it: the interpreter must not even be shown it."""
    model = load_bundle(new).model[:200]
    manifest = json.loads((new / "manifest.json").read_bytes())
    manifest["model_sha256"] = hashlib.sha256(model).hexdigest()
    changed = upload(new, model=model, manifest=json.dumps(manifest).encode())
    assert "truncated" in problem(client.post(f"{V1}/bundles", json=changed), 422)["detail"]
    assert not inside.table(BundleFiles)


def test_an_unknown_bundle_is_not_there(client: httpx.Client) -> None:
    problem(client.get(f"{V1}/bundles/{'0' * 64}"), 404)
    problem(client.get(f"{V1}/bundles/..."), 422)


def test_the_commands_add_and_list(inside: Insides, new: Path) -> None:
    with serving(context_of(inside)) as client:
        server = str(client.base_url)

        def command(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "cloud", "bundles", *arguments, "--server", server],
                env=ENVIRONMENT,
                capture_output=True,
                text=True,
                check=False,
            )

        added = command("add", str(new), "--reason", "winter")
        assert added.stdout.strip() == load_bundle(new).sha256, added.stderr
        listed = json.loads(command("list", "--json").stdout)
        assert [one["why"] for one in listed] == ["winter", None]
        assert command("show", "0" * 64).returncode == 3
