"""Signed heads in a bucket: boto3 over HTTP, as the service does it, against moto."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto.moto_proxy.proxy3 import ProxyRequestHandler

from cloud.audit import head_files
from cloud.audit.heads import Signed
from cloud.errors import HeadsError, HeadsExportError

BUCKET = "audit"
FIRST = Signed("{}", "k", "s", "a 1 x\n")
OTHER = Signed("{}", "k", "s", "a 1 y\n")


PUT_CONDITIONS: list[str | None] = []


class Recording(ProxyRequestHandler):
    """moto's own, that remembers under which conditions something was put."""

    def do_PUT(self) -> None:  # noqa: N802
        PUT_CONDITIONS.append(self.headers["If-None-Match"])
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Every request of a client of this process goes to a moto of its own, over HTTP."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Recording)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for name in ("AWS_PROFILE", "NO_PROXY", "no_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3.us-east-1.amazonaws.com")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=one["Key"])
    client.delete_bucket(Bucket=BUCKET)
    server.shutdown()
    thread.join()
    server.server_close()


def kept(s3: Any) -> dict[str, bytes]:
    found = s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {
        one["Key"]: s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read() for one in found
    }


def test_a_statement_is_kept_once_and_never_written_over(s3: Any) -> None:
    sink = head_files.sink_to(f"s3://{BUCKET}/twin/")
    sink(1, FIRST)
    sink(1, FIRST)
    with pytest.raises(HeadsExportError, match="another statement of that number"):
        sink(1, OTHER)
    sink(2, OTHER)
    assert kept(s3) == {
        "twin/0000000001.heads.json": head_files.encode(FIRST),
        "twin/0000000002.heads.json": head_files.encode(OTHER),
    }


def test_the_bucket_itself_is_asked_to_refuse(s3: Any) -> None:
    """To look first and write then would let two through."""
    PUT_CONDITIONS.clear()
    head_files.sink_to(f"s3://{BUCKET}")(1, FIRST)
    assert PUT_CONDITIONS == ["*"]
    assert kept(s3) == {"0000000001.heads.json": head_files.encode(FIRST)}


def test_what_was_kept_is_read_again_in_order_and_nothing_beside_it(s3: Any) -> None:
    sink = head_files.sink_to(f"s3://{BUCKET}/twin")
    for number in (2, 1, 10):
        sink(number, Signed("{}", "k", f"s{number}", "a 1 x\n"))
    s3.put_object(Bucket=BUCKET, Key="twin/notes.txt", Body=b"of somebody else")
    for another in ("twin2", "twin/other"):
        head_files.sink_to(f"s3://{BUCKET}/{another}")(3, OTHER)
    found = head_files.read_all(f"s3://{BUCKET}/twin")
    assert [one.signature for one in found] == ["s1", "s2", "s10"]


def test_what_cannot_be_read_in_a_bucket_is_named(s3: Any) -> None:
    with pytest.raises(HeadsError, match=r"s3://nowhere cannot be read .*NoSuchBucket"):
        head_files.read_all("s3://nowhere")
    s3.put_object(Bucket=BUCKET, Key="0000000001.heads.json", Body=b"{")
    with pytest.raises(HeadsError, match=f"s3://{BUCKET}/0000000001.heads.json cannot be read"):
        head_files.read_all(f"s3://{BUCKET}")


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_said() -> None:
    with pytest.raises(HeadsExportError, match=r"s3://nowhere/0000000001.*NoSuchBucket"):
        head_files.sink_to("s3://nowhere")(1, FIRST)


def test_a_bucket_that_does_not_answer_is_said(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del s3
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(HeadsExportError, match="proxy"):
        head_files.sink_to(f"s3://{BUCKET}")(1, FIRST)
