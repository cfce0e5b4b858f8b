"""Where files of the archive are: a folder, or a bucket of a storage that speaks S3.

A file has a name that its content makes, and is on the disk (or answered for by the storage) before
`put` returns. Must never leave a part of a file under its name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from cloud.errors import TraceArchiveError

_S3: Final = "s3://"
_CONNECT_S, _ANSWER_S = 5, 20
_MISSING: Final = {"NoSuchKey", "404"}


class Place(Protocol):
    """Every method raises TraceArchiveError."""

    def prepare(self) -> None:
        """Be there, before the first file is announced."""

    def put(self, name: str, content: bytes) -> None:
        """Keep a file."""

    def get(self, name: str) -> bytes | None:
        """A file; None: it is not there."""

    def remove(self, name: str) -> None:
        """Keep it no longer; nothing where it is not there."""

    def where(self, name: str) -> str:
        """For a person."""


def place_at(where: str, endpoint: str | None = None) -> Place:
    """A folder, or `s3://bucket/prefix` at an endpoint (None: AWS's)."""
    if not where.startswith(_S3):
        return Folder(Path(where))
    bucket, _, prefix = where.removeprefix(_S3).partition("/")
    return Bucket(bucket, prefix.strip("/"), endpoint)


class Folder:
    """On this machine, or mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def prepare(self) -> None:
        """Make the folder; later it must be there: it may be a disk that is not mounted."""
        with self._told(""):
            self._root.mkdir(parents=True, exist_ok=True)
            _sync(self._root.parent)

    def put(self, name: str, content: bytes) -> None:
        """First under another name; then file and folders are synced."""
        path = self._root / name
        beside = path.with_name(f".{path.name}.{os.getpid()}.new")
        with self._told(name):
            path.parent.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            for folder in (path.parent, self._root):
                _sync(folder)

    def get(self, name: str) -> bytes | None:
        """A file; None: it is not there."""
        with self._told(name):
            try:
                return (self._root / name).read_bytes()
            except FileNotFoundError:
                if self._root.is_dir():
                    return None
                raise  # the folder itself

    def remove(self, name: str) -> None:
        """And its month's folder with the last of it."""
        path = self._root / name
        with self._told(name):
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                path.parent.rmdir()

    def where(self, name: str) -> str:
        """For a person."""
        return str(self._root / name)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TraceArchiveError(self.where(name), error.strerror or str(error)) from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Bucket:
    """Credentials are those that AWS's tools find; without a network nothing is asked."""

    def __init__(self, bucket: str, prefix: str, endpoint: str | None) -> None:
        self._bucket, self._prefix, self._endpoint = bucket, prefix, endpoint
        self._made: Any = None

    def prepare(self) -> None:
        """A bucket is made by its owner, with the rules that it shall have."""

    def put(self, name: str, content: bytes) -> None:
        """The storage checks the bytes against a checksum that goes with them."""
        with self._told(name):
            self._client().put_object(**self._at(name), Body=content, ChecksumAlgorithm="SHA256")

    def get(self, name: str) -> bytes | None:
        """A file; None: it is not there."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        with self._told(name):
            try:
                content: bytes = self._client().get_object(**self._at(name))["Body"].read()
            except ClientError as error:
                if error.response["Error"]["Code"] in _MISSING:
                    return None
                raise
            return content

    def remove(self, name: str) -> None:
        """Keep it no longer; a bucket with versions has rules of its own for old ones."""
        with self._told(name):
            self._client().delete_object(**self._at(name))

    def where(self, name: str) -> str:
        """For a person."""
        return f"{_S3}{self._bucket}/{self._key(name)}"

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(name)}

    def _client(self) -> Any:
        if self._made is None:
            import boto3  # noqa: PLC0415  # only who keeps traces in a bucket needs the `aws` extra
            from botocore.config import Config  # noqa: PLC0415

            waits = Config(connect_timeout=_CONNECT_S, read_timeout=_ANSWER_S)
            self._made = boto3.client("s3", endpoint_url=self._endpoint, config=waits)
        return self._made

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        import botocore.exceptions as known  # noqa: PLC0415

        try:
            yield
        except (known.BotoCoreError, known.ClientError) as error:
            raise TraceArchiveError(self.where(name), str(error)) from error
