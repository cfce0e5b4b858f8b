"""The registry of bundles: what there is, who runs it, and one more.

Must never take a bundle that a vehicle would refuse, nor change one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Path, Response
from sqlmodel import Session

from cloud.api.access import Context, Here
from cloud.api.authority import Actor, Admin, Viewer, require_every_cohort
from cloud.api.bundle_schemas import BundleDetail, BundleFeature, BundleItem, BundleUpload
from cloud.api.paging import Page
from cloud.api.problems import invalid, not_found, responses
from cloud.api.views import utc
from cloud.api.writing import WRITE_STATUSES, Answer, OnceOnly, named
from cloud.push import bundle_files
from cloud.store import bundle_registry, events
from cloud.store.bundle_registry import Kept
from common.errors import BundleError
from common.manifest import Manifest, decode_manifest

router = APIRouter(prefix="/api/v1/bundles", tags=["bundles"])
AGAIN: Final = "It was here already."
BundleId = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


@router.get("", responses=responses())
def list_bundles(here: Here, actor: Viewer) -> Page[BundleItem]:
    """Every bundle, configured or kept, the one added last first; how many vehicles run it."""
    with here.store.read() as db:
        rows = bundle_registry.kept(db)
        runners = bundle_registry.runners(db, actor.cohorts)
    items = [_item(here, row.sha256, row, runners) for row in rows]
    known = {row.sha256 for row in rows}
    others = sorted(set(here.catalogue.hashes) - known)
    return Page(items=[*items, *(_item(here, one, None, runners) for one in others)], next=None)


@router.get("/{sha256}", responses=responses(404))
def get_bundle(here: Here, actor: Viewer, sha256: BundleId) -> BundleDetail:
    """One bundle with its manifest."""
    with here.store.read() as db:
        return _detail(here, db, actor, sha256)


@router.post(
    "",
    status_code=201,
    response_model=BundleDetail,
    responses={**responses(*WRITE_STATUSES), 200: {"model": BundleDetail, "description": AGAIN}},
)
def add_bundle(here: Here, actor: Admin, once: OnceOnly, told: BundleUpload) -> Response:
    """Try a bundle as a vehicle would, and keep its files; the same one again changes nothing."""
    require_every_cohort(actor)
    manifest, model = (_decoded(told, name) for name in ("manifest", "model"))
    try:
        bundle = bundle_files.uploaded(manifest, model)
    except BundleError as error:
        raise invalid("body", str(error)) from error

    def write(db: Session) -> Answer:
        who, now = named(actor, told.by), here.clock()
        is_new = bundle_files.keep(db, bundle, now, manifest, who, told.why)
        if is_new:
            detail = {"bundle": bundle.sha256, "name": bundle.manifest.name, "why": told.why}
            events.add(db, "bundle.added", now, actor=who, detail=detail)
        shown = _detail(here, db, actor, bundle.sha256)
        where = {"Location": f"{router.prefix}/{bundle.sha256}"}
        return Answer(shown, 201 if is_new else 200, where)

    return once.write(actor, write)


def _decoded(told: BundleUpload, name: str) -> bytes:
    try:
        return base64.b64decode(getattr(told, name), validate=True)
    except binascii.Error as error:
        raise invalid(f"body.{name}", f"no base64 ({error})") from error


def _detail(here: Context, db: Session, actor: Actor, sha256: str) -> BundleDetail:
    found = bundle_registry.kept(db, sha256)
    row = found[0] if found else None
    if row is None and here.catalogue.get(sha256) is None:
        raise not_found(f"bundle {sha256!r}")
    item = _item(here, sha256, row, bundle_registry.runners(db, actor.cohorts))
    manifest: dict[str, Any] = msgspec.to_builtins(_manifest(here, sha256, row))
    return BundleDetail(**item.model_dump(), manifest=manifest)


def _item(here: Context, sha256: str, row: Kept | None, runners: Mapping[str, int]) -> BundleItem:
    manifest, bundle = _manifest(here, sha256, row), here.catalogue.get(sha256)
    return BundleItem(
        sha256=sha256,
        name=manifest.name,
        size_bytes=row.model_bytes + len(row.manifest) if row else None,
        features=[BundleFeature(name=one.name, unit=one.unit) for one in manifest.features],
        parameters=[one.name for one in manifest.parameters],
        provenance=manifest.provenance,
        configured=bundle is not None and bundle.path.is_dir(),
        kept=row is not None,
        vehicles=runners.get(sha256, 0),
        added_at=utc(row.added_at if row else None),
        added_by=row.added_by if row else None,
        why=row.why if row else None,
    )


def _manifest(here: Context, sha256: str, row: Kept | None) -> Manifest:
    if row is None:
        return here.catalogue.manifest(sha256)
    return decode_manifest(row.manifest, f"(kept) {sha256[:12]}")
