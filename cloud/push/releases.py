"""Announce bundles to vehicles: orders become signed releases, and each is published until heard.

Must never publish what is not committed, nor an older release than a vehicle's newest.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Final

from sqlmodel import Session, col, select

from cloud.bundles import Catalogue
from cloud.calibration.revising import Author
from cloud.errors import UnsignableError
from cloud.mqtt.protocol import Publisher
from cloud.store import releases
from cloud.store.database import Store
from cloud.store.tables import BundleFiles, Release
from common.bundle import MANIFEST_FILE, MODEL_FILE, Bundle
from common.errors import BundleError
from common.manifest import decode_manifest
from common.messages import encode
from common.release import (
    CHUNK_BYTES,
    Announcement,
    SignedAnnouncement,
    announced_file,
    digest,
    sign_announcement,
)
from common.topics import topic

log = logging.getLogger(__name__)

AT_ONCE: Final = 100


class Releases:
    """Of one service; used from the worker's thread."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        author: Author,
        publisher: Publisher,
        clock: Callable[[], float],
    ) -> None:
        self._store, self._catalogue, self._author = store, catalogue, author
        self._publisher, self._clock = publisher, clock
        self._taken: deque[int] = deque()

    def turn(self) -> bool:
        """Sign and publish a round of what was ordered; whether there was any."""
        self.note_taken()
        with self._store.read() as db:
            if not releases.ordered(db, 1):
                return False
        with self._store.write() as db:
            made = releases.taken(db, AT_ONCE)
            for row in made:
                row.number = releases.next_number(db, row.vehicle_id)
                self._sign_guarded(db, row)
                db.flush()
        for row in made:
            log.info(
                "release_announced vehicle_id=%s release=%s bundle=%s reason=%r",
                row.vehicle_id, row.number, row.bundle[:12], row.reason,
            )  # fmt: skip
            self._publish(row)
        return bool(made)

    def publish_again(self, vehicle_ids: Collection[str] | None) -> None:
        """The newest release of these vehicles; None: of all that have said nothing of theirs."""
        with self._store.read() as db:
            if vehicle_ids is None:
                rows = releases.newest_unheard(db)
            else:
                found = [releases.newest(db, vehicle_id) for vehicle_id in vehicle_ids]
                rows = [row for row in found if row is not None]
        for row in rows:
            self._publish(row)

    def _sign_guarded(self, db: Session, row: Release) -> None:
        """A bundle that cannot be announced must not keep others from it."""
        try:
            self._sign(db, row)
        except (BundleError, UnsignableError) as error:
            log.error("release_not_signed vehicle_id=%s why=%r", row.vehicle_id, str(error))  # noqa: TRY400
            row.state, row.state_reason, row.state_at = "refused", "not_signed", self._clock()
            row.state_detail = str(error)[:512]

    def _sign(self, db: Session, row: Release) -> None:
        files = db.get(BundleFiles, row.bundle)
        assert files is not None  # noqa: S101 - written in the order's own transaction
        if row.bundle not in self._catalogue.hashes:
            self._catalogue.add(bundle_of(files))
        announcement = Announcement(
            kind="bundle_release",
            vehicle_id=row.vehicle_id,
            release=row.number or 0,
            bundle=row.bundle,
            chunk_bytes=CHUNK_BYTES,
            files=[
                announced_file(MANIFEST_FILE, files.manifest),
                announced_file(MODEL_FILE, files.model),
            ],
            reason=row.reason,
            announced_at=round(self._clock(), 3),
        )
        signed = sign_announcement(announcement, self._author.key)
        row.content, row.key_id = signed.announcement.encode(), signed.key_id
        row.signature, row.hash = signed.signature, digest(row.content)

    def _publish(self, row: Release) -> None:
        if row.content is None or row.key_id is None or row.signature is None:
            return
        signed = SignedAnnouncement(
            key_id=row.key_id, signature=row.signature, announcement=row.content.decode()
        )
        taken = partial(self._taken.append, row.id or 0)
        name = topic(row.vehicle_id, "bundle")
        self._publisher.publish(name, encode(signed), taken, retain=True)

    def note_taken(self) -> None:
        """Write down what the broker has. Raises StoreUnavailableError."""
        ids = [self._taken.popleft() for _ in range(len(self._taken))]
        if ids:
            with self._store.write() as db:
                releases.mark_published(db, ids, self._clock())


def add_stored(store: Store, catalogue: Catalogue) -> None:
    """Let the catalogue know every bundle that was ever announced from this database."""
    unknown = select(BundleFiles).where(col(BundleFiles.sha256).not_in(catalogue.hashes))
    with store.read() as db:
        for files in db.exec(unknown):
            catalogue.add(bundle_of(files))


def bundle_of(files: BundleFiles) -> Bundle:
    """The bundle that these files are. Raises BundleError."""
    where = Path(f"(announced) {files.sha256[:12]}")
    manifest = decode_manifest(files.manifest, where)
    if digest(files.model) != manifest.model_sha256 or digest(files.manifest) != files.sha256:
        raise BundleError(where, "its files are damaged", "Restore the database from a backup.")
    return Bundle(manifest, files.model, files.sha256, where)
