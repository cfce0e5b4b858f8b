"""What `twin-cloud ca` and `enroll` read and write.

Must never write a private key where anybody but its owner reads it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cloud.commands.reports import show
from cloud.errors import AuthorityError
from cloud.security import certificate_authority as authority
from cloud.security.certificate_authority import CERTIFICATE, REVOKED, Order
from cloud.security.certificates import SERVICE, Kind
from cloud.security.mosquitto_files import access_list
from cloud.security.safe_files import replace_file

ACCESS_LIST: Final = "twin.acl"
_COLUMNS: Final = ("name", "kind", "stands", "issued_at", "expires_at", "revoked_at", "serial")


def kind_of(*, service: bool, broker: bool) -> Kind:
    """What is ordered, by what was said of it."""
    return "service" if service else "broker" if broker else "vehicle"


def enroll(
    folder: Path, order: Order, csr: Path | None, out: Path, now: datetime, *, replace: bool
) -> list[Path]:
    """The files that were written. Raises AuthorityError."""
    there = authority.load(folder)
    if csr is not None:
        pem = there.sign(order, csr.read_bytes(), now, replace=replace)
        replace_file(out, pem, 0o644)
        return [out]
    key_file = out.with_suffix(".key")
    if key_file.exists() and not replace:
        raise AuthorityError(f"{key_file} exists already; --replace makes a new key")
    pem, key = there.make(order, now, replace=replace)
    replace_file(key_file, key, 0o600)
    replace_file(out, pem, 0o644)
    return [out, key_file]


def publish(folder: Path, out: Path, now: datetime) -> list[str]:
    """The names of what was written. Raises AuthorityError."""
    there = authority.load(folder)
    named = {i.name for i in there.issued() if i.kind == "service" and i.stands(now.timestamp())}
    files = {name: (folder / name).read_bytes() for name in (CERTIFICATE, REVOKED)}
    files[ACCESS_LIST] = access_list(sorted(named | {SERVICE})).encode()
    for name, content in files.items():
        replace_file(out / name, content, 0o644)
    return list(files)


def list_issued(folder: Path, now: datetime, *, as_json: bool) -> None:
    """Print every certificate. Raises AuthorityError."""
    rows = [
        {
            "name": one.name,
            "kind": one.kind,
            "stands": one.stands(now.timestamp()),
            "issued_at": _shown(one.issued_at),
            "expires_at": _shown(one.expires_at),
            "revoked_at": _shown(one.revoked_at),
            "reason": one.reason if one.revoked_at else None,
            "serial": one.serial,
        }
        for one in authority.load(folder).issued()
    ]
    show(rows, list(_COLUMNS), as_json=as_json)


def _shown(unix_s: float | None) -> str | None:
    return None if unix_s is None else f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
