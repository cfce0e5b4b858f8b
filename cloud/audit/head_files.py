"""Where signed statements are kept outside the database: a folder, or a bucket.

A copy proves something only where the database's owner cannot change it: a folder on another
machine, media that are written once, a bucket with an object lock. That is the operator's choice.
Must never write over a statement.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from cloud.audit.heads import Signed
from cloud.errors import HeadsError, HeadsExportError

Sink = Callable[[int, Signed], None]
"""Keeps a statement by its number; the same one again changes nothing. Raises HeadsExportError."""

SUFFIX: Final = ".heads.json"
_S3: Final = "s3://"


def sink_to(where: str) -> Sink:
    """The sink of a folder, or of `s3://bucket/prefix`."""
    if where.startswith(_S3):
        return _bucket(where)
    return _folder(Path(where))


def name_of(number: int) -> str:
    """File names sort as their numbers do."""
    return f"{number:010d}{SUFFIX}"


def encode(signed: Signed) -> bytes:
    """A statement as a file."""
    return msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n"


def read_all(where: str) -> list[Signed]:
    """Every statement of a folder, or of `s3://bucket/prefix`, the oldest first.

    Raises HeadsError.
    """
    files = _in_bucket(where) if where.startswith(_S3) else _in_folder(Path(where))
    found: list[Signed] = []
    try:
        for name, read in files:
            found.append(_decoded(name, read(), len(found) + 1))
    except HeadsError:
        raise
    except Exception as error:  # whatever a bucket's library raises
        raise HeadsError(len(found) + 1, f"{where} cannot be read ({error})") from error
    return found


def _decoded(name: str, content: bytes, place: int) -> Signed:
    try:
        return msgspec.json.decode(content, type=Signed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise HeadsError(place, f"{name} cannot be read ({error})") from error


def _in_folder(folder: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        yield str(path), path.read_bytes


def _in_bucket(where: str) -> Iterator[tuple[str, Callable[[], bytes]]]:
    bucket, _, prefix = where.removeprefix(_S3).partition("/")
    folder = f"{prefix.strip('/')}/".lstrip("/")
    client = _client()
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix=folder, Delimiter="/"
    )
    keys = (one["Key"] for page in pages for one in page.get("Contents", []))
    for key in sorted(key for key in keys if key.endswith(SUFFIX)):
        yield f"{_S3}{bucket}/{key}", partial(_get, client, bucket, key)


def _get(client: Any, bucket: str, key: str) -> bytes:
    content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def _folder(folder: Path) -> Sink:
    def keep(number: int, signed: Signed) -> None:
        path, content = folder / name_of(number), encode(signed)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                _write_whole(path, content)
            elif path.read_bytes() != content:
                raise HeadsExportError(path, "another statement of that number is there")
        except OSError as error:
            raise HeadsExportError(path, error.strerror or str(error)) from error

    return keep


def _write_whole(path: Path, content: bytes) -> None:
    """Under its own name only once it is on the disk."""
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _bucket(where: str) -> Sink:
    bucket, _, prefix = where.removeprefix(_S3).partition("/")

    def keep(number: int, signed: Signed) -> None:
        key = "/".join(filter(None, (prefix.strip("/"), name_of(number))))
        try:
            _put_once(_client(), bucket, key, encode(signed))
        except HeadsExportError:
            raise
        except Exception as error:
            raise HeadsExportError(f"{_S3}{bucket}/{key}", str(error)) from error

    return keep


def _client() -> Any:
    import boto3  # noqa: PLC0415  # only who keeps them in a bucket needs the `aws` extra

    return boto3.client("s3")


def _put_once(client: Any, bucket: str, key: str, content: bytes) -> None:
    """Refused by the bucket itself where the key is taken; then it must be the same."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        client.put_object(Bucket=bucket, Key=key, Body=content, IfNoneMatch="*")
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"PreconditionFailed", "412"}:
            raise
        if client.get_object(Bucket=bucket, Key=key)["Body"].read() != content:
            problem = "another statement of that number is there"
            raise HeadsExportError(f"{_S3}{bucket}/{key}", problem) from error
