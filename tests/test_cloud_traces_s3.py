"""The archive in a bucket, by AWS's own client against moto; and the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from moto import mock_aws

from cloud.commands.command import NOT_FOUND, REFUSED
from cloud.errors import TraceArchiveError, TraceFileError
from cloud.store.trace_tables import TraceFile
from cloud.traces.archive import Archive
from cloud.traces.places import Bucket, place_at
from cloud.traces.reading import trace_of
from tests.cloud_doubles import NOW, Insides, write_bundle
from tests.support_command_line import twin_cloud
from tests.support_traces import DAY_S, breaches, keeper, turned

BUCKET = "twin-traces"
WHERE = f"s3://{BUCKET}/fleet/eu"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client; there is a bucket with nothing in it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Insides]:
    """A vehicle with three settled breaches, two months ago."""
    made = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    for trip in (1, 2, 3):
        made.take(made.car().breach(trip, revision=trip - 1))
        made.work()
    made.now = NOW + 61 * DAY_S
    yield made
    made.store.close()


def keys(s3: Any) -> list[str]:
    found = s3.list_objects_v2(Bucket=BUCKET)
    return [entry["Key"] for entry in found.get("Contents", [])]


def read(inside: Insides) -> dict[str, bytes]:
    archive = Archive(place_at(WHERE))
    with inside.store.read() as db:
        return {name: trace_of(db, archive, row) for name, row in breaches(inside).items()}


def test_traces_go_to_a_bucket_come_back_and_are_removed(inside: Insides, s3: Any) -> None:
    before = {name: row.trace for name, row in breaches(inside).items()}
    place = place_at(WHERE)
    assert turned(keeper(inside, place)) == 3
    [file] = inside.table(TraceFile)
    assert keys(s3) == [f"fleet/eu/{file.name}"]
    assert {row.trace for row in breaches(inside).values()} == {b""}
    assert read(inside) == before
    inside.now = NOW + 400 * DAY_S
    turned(keeper(inside, place))
    assert keys(s3) == []


def test_a_damaged_or_lost_object_is_named(inside: Insides, s3: Any) -> None:
    turned(keeper(inside, place_at(WHERE)))
    [key] = keys(s3)
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"PAR1")
    with pytest.raises(TraceFileError, match=f"s3://{BUCKET}/{key} cannot be used: its bytes"):
        read(inside)
    s3.delete_object(Bucket=BUCKET, Key=key)
    with pytest.raises(TraceFileError, match="it is not there"):
        read(inside)


def test_without_its_bucket_nothing_leaves_the_database(inside: Insides, s3: Any) -> None:
    del s3
    with pytest.raises(TraceArchiveError, match="NoSuchBucket"):
        keeper(inside, place_at("s3://elsewhere/fleet")).turn()
    assert all(row.trace for row in breaches(inside).values())


def test_the_commands_archive_tell_and_fetch(
    inside: Insides,
    s3: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sent = breaches(inside).popitem()[1].trace
    config = tmp_path / "twin-cloud.toml"
    plain = """
[bundles]
paths = ["bundle"]
[keys]
private = "none.pem"
[store]
path = "twin.db"
"""
    config.write_text(plain)

    def ran(*words: object) -> tuple[int, str, str]:
        return twin_cloud(monkeypatch, capsys, "traces", *words, "--config", config)

    assert ran("archive")[0] == REFUSED
    config.write_text(f'{plain}[traces]\narchive = "{WHERE}"\nkeep_days_in_database = 1')
    code, out, _ = ran("archive", "--json")
    assert (code, msgspec.json.decode(out)[0]["released"]) == (0, 3)
    code, out, _ = ran("status", "--json")
    assert [(row["where"], row["breaches"]) for row in msgspec.json.decode(out)] == [
        ("database", 0), ("archive", 3),
    ]  # fmt: skip
    assert len(keys(s3)) == 1
    code, out, _ = ran("fetch", "car", "trip3", "--json")
    assert (code, out) == (0, sent.decode() + "\n")
    assert "voltage_v" in ran("fetch", "car", "trip3")[1]
    assert ran("fetch", "car", "trip4")[0] == NOT_FOUND


def test_a_storage_that_is_not_aws_is_asked_at_its_own_address(s3: Any) -> None:
    del s3
    place = Bucket(BUCKET, "", "http://127.0.0.1:9")
    with pytest.raises(TraceArchiveError, match=r"http://127\.0\.0\.1:9/"):
        place.get("month=2026-11/a.parquet")
