"""A release on its way into the car: what comes of it, and what is done about it, turn by turn.

Each step is on the disk before the next begins, so that a start anywhere goes on from there. Must
never block, and never raise for a failing disk or a bad message other than ContractError.
"""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from common.bundle import MANIFEST_FILE
from common.errors import BundleError, MalformedMessageError, TwinError
from common.manifest import decode_manifest
from common.messages import Breach, decode, encode
from common.release import Announcement, Chunk, Fetch, ReleaseReason, SignedAnnouncement
from common.topics import Kind
from edge_agent.bundle_update import record as records
from edge_agent.bundle_update.announcement import (
    Judgement,
    Receiver,
    authenticate,
    incompatibility,
    judge,
)
from edge_agent.bundle_update.chunk_store import ChunkStore, NoSpaceError
from edge_agent.bundle_update.record import Record
from edge_agent.bundle_update.requests import Requests
from edge_agent.bundle_update.self_test import Question
from edge_agent.bundle_update.start import Start
from edge_agent.config import Config
from edge_agent.errors import StorageError
from edge_agent.storage import kept, outbox
from edge_agent.storage.refusals import Refusals
from edge_agent.timekeeping.clock import Clock

if TYPE_CHECKING:
    from edge_agent.bundle_update.self_test_process import SelfTest

log = logging.getLogger(__name__)

BAD_CHUNKS: Final = 64
"""So many chunks with another SHA-256 than announced, and the release is given up."""
SURVIVED_S: Final = 60.0
RETRY_S: Final = 30.0
LARGEST_MANIFEST: Final = 1024 * 1024
FLOOR: Final = "bundle_release"
Publish = Callable[[Kind, bytes], int | None]


@dataclass
class _Download:
    announcement: Announcement
    store: ChunkStore
    requests: Requests
    bad: int = 0
    is_fitting: bool = False


class BundleUpdates:
    """Of one agent on `start`. Call `receive` for each message and `turn` often; one thread."""

    def __init__(
        self,
        start: Start,
        config: Config,
        who: Receiver,
        clock: Clock,
        jitter: random.Random,
        refusals: Refusals,
    ) -> None:
        self._folder, self._state, self._running = start.folder, start.state, start.bundle
        self._factory, self._config, self._who, self._clock = start.factory, config, who, clock
        self._jitter, self._refusals = jitter, refusals
        self._download: _Download | None = None
        self._test: SelfTest | None = None
        self._began_s = clock.monotonic()
        self._retry_s = float("-inf")
        self._was_in_trip = False
        self.record = self._with_known_floor(start.record)
        self._resume()

    # ---- what comes ---------------------------------------------------------------------------

    def receive(self, kind: Kind, payload: bytes) -> None:
        """A message on `bundle` or `chunk`. Raises ContractError."""
        try:
            if kind == "bundle":
                self._take_announcement(payload)
            else:
                self._take_chunk(decode(payload, Chunk))
        except (OSError, sqlite3.Error, StorageError) as error:
            self._trouble(error)

    def reconnected(self) -> None:
        """Another connection: what was asked for may be lost."""
        if self._download is not None:
            self._download.requests.reconnected()

    def _take_announcement(self, payload: bytes) -> None:
        signed = decode(payload, SignedAnnouncement)
        found = judge(signed, self._who, self.record.floor)
        if found.announcement is not None and found.hash == self.record.judged:
            self._take_again(payload, found.announcement)
            return
        if found.reason:
            self._refuse_unread(found, payload)
        if found.announcement is None or found.reason not in {"", "too_large"}:
            return
        self._accept(found, payload)

    def _take_again(self, payload: bytes, announcement: Announcement) -> None:
        """The retained message comes with every connection; it may also be what a disk lost."""
        pending = self.record.pending
        if pending is not None and not pending.is_staged and self._download is None:
            self._folder.keep_announcement(payload)
            self._open(announcement)

    def _refuse_unread(self, found: Judgement, payload: bytes) -> None:
        """Kept for a person to look at; answered where a trusted key signed it."""
        self._refusals.message(f"{found.reason}: {found.detail}", payload)
        if found.named is None or found.reason == "too_large":
            return
        answer = records.acknowledgement(
            *(self._who.vehicle_id, found.named, "refused", self._clock.unix()),
            *(found.reason, found.detail),
        )
        with self._state.transaction() as db:
            outbox.put(db, "bundle_ack", answer.message_id, encode(answer))

    def _accept(self, found: Judgement, payload: bytes) -> None:
        """First the announcement is on the disk, then the record that it is under way."""
        announcement = found.announcement
        assert announcement is not None  # noqa: S101 - it was judged
        now = self._clock.unix()
        if found.reason:
            judged = records.judged(self.record, announcement, found.hash)
            self._save(records.refused(judged, found.reason, found.detail, now))
        else:
            self._folder.keep_announcement(payload)
            self._save(records.accepted(self.record, announcement, found.hash, now))
        self._abandon()
        told = "release_judged vehicle=%s release=%d bundle=%s verdict=%s reason=%r"
        verdict = found.reason or "fetching"
        log.info(
            told, self._who.vehicle_id, announcement.release, announcement.bundle[:12], verdict,
            announcement.reason,
        )  # fmt: skip
        if not found.reason:
            self._open(announcement)

    def _take_chunk(self, chunk: Chunk) -> None:
        download = self._download
        if chunk.vehicle_id != self._who.vehicle_id:
            raise MalformedMessageError("Chunk", f"it is addressed to {chunk.vehicle_id}")
        if download is None:
            return  # late, or repeated by the broker
        taken = download.store.take(chunk)
        if taken == "unasked":
            return
        download.requests.came((chunk.file, chunk.index), is_good=taken == "kept")
        if taken == "mismatch":
            download.bad += 1
            if download.bad >= BAD_CHUNKS:
                self._refuse("chunk_mismatch", f"{download.bad} chunks were not what was announced")
            raise MalformedMessageError("Chunk", f"{chunk.file} {chunk.index} has another SHA-256")

    # ---- what is done -------------------------------------------------------------------------

    def turn(self, publish: Publish | None, *, in_trip: bool, trips: int) -> None:
        """Do what is due. `publish` is None while not connected; `trips` were reported so far."""
        now = self._clock.monotonic()
        if now < self._retry_s:
            return
        try:
            self._watch_trial(now, in_trip=in_trip, trips=trips)
            self._go_on(publish, now)
            self._tell()
        except (OSError, sqlite3.Error, StorageError) as error:
            self._trouble(error)

    @property
    def is_staged(self) -> bool:
        """Whether another bundle waits for the end of the trip."""
        return self.record.pending is not None and self.record.pending.is_staged

    def swap(self) -> bool:
        """Between two trips: another bundle from the next start on. False: nothing has changed."""
        if not self.is_staged or self._clock.monotonic() < self._retry_s:
            return False
        try:
            self._save(records.swapped(self.record, self._factory, self._clock.unix()))
            self._tell()
        except (OSError, StorageError) as error:
            self._trouble(error)
        return self.record.pending is None

    def close(self, *, in_order: bool) -> None:
        """The agent ends; in good order means that no crash ended it."""
        self._abandon()
        if in_order:
            self._survived()

    def _watch_trial(self, now: float, *, in_trip: bool, trips: int) -> None:
        """A reported trip ends the trial; a short one, or a minute of peace, is no crash either."""
        has_ended, self._was_in_trip = self._was_in_trip and not in_trip, in_trip
        if not self._is_on_trial:
            return
        if trips > 0:
            self._save(records.passed(self.record, self._clock.unix()))
            self._folder.forget_all_but(self.record.in_use, incoming=self._download is not None)
        elif has_ended or (not in_trip and now - self._began_s > SURVIVED_S):
            self._survived()

    @property
    def _is_on_trial(self) -> bool:
        """This process, that is: after a swap the old bundle still runs here for a moment."""
        is_running = self.record.current.bundle == self._running.sha256
        return is_running and self.record.trial_starts is not None

    def _survived(self) -> None:
        if self._is_on_trial and self.record.trial_starts:
            try:
                self._save(records.survived(self.record))
            except OSError as error:
                self._trouble(error)

    def _tell(self) -> None:
        """Acknowledgements into the outbox, and with them the floor: a second place to know it."""
        if not self.record.untold:
            return
        with self._state.transaction() as db:
            for ack in self.record.untold:
                outbox.put(db, "bundle_ack", ack.message_id, encode(ack))
            kept.raise_to(db, FLOOR, self.record.floor)
        self._save(msgspec.structs.replace(self.record, untold=[]))

    def _go_on(self, publish: Publish | None, now: float) -> None:
        if self._test is not None:
            self._hear_test(now)
        elif self._download is not None:
            self._fetch(self._download, publish, now)
        elif self.record.pending is not None and not self.is_staged:
            self._resume()  # the disk refused before

    def _fetch(self, download: _Download, publish: Publish | None, now: float) -> None:
        if not download.is_fitting and download.store.has_all_of(MANIFEST_FILE):
            problem = self._misfit(download)
            if problem is not None:
                self._refuse("incompatible", problem)
                return
            download.is_fitting = True
        missing = download.store.missing()
        if not missing:
            self._complete(download)
            return
        wanted = download.requests.due(missing, now) if publish else []
        if publish and wanted:
            asked = Fetch(
                vehicle_id=self._who.vehicle_id,
                release=download.announcement.release,
                bundle=download.announcement.bundle,
                file=wanted[0][0],
                chunks=[index for _, index in wanted],
                missing=len(missing),
            )
            publish("fetch", encode(asked))

    def _misfit(self, download: _Download) -> str | None:
        if download.announcement.file(MANIFEST_FILE).size > LARGEST_MANIFEST:
            return f"its manifest has more than {LARGEST_MANIFEST} bytes"
        try:
            manifest = decode_manifest(download.store.read(MANIFEST_FILE), "the announced one")
        except BundleError as error:
            return str(error)
        return incompatibility(manifest, self._running.manifest, self._config)

    def _complete(self, download: _Download) -> None:
        if not download.store.finish():
            self._refuse("chunk_mismatch", "the files are not those announced, chunk by chunk")
            return
        self._folder.move_in(download.announcement.bundle)
        self._download = None
        self._begin_test(download.announcement)

    def _begin_test(self, announcement: Announcement) -> None:
        # A car that is brought no bundle needs no subprocesses.
        from edge_agent.bundle_update.self_test_process import SelfTest  # noqa: PLC0415

        question = Question(
            str(self._folder.path / announcement.bundle),
            announcement.bundle,
            str(self._running.path),
            self._kept_breaches(),
        )
        self._test = SelfTest(question, self._clock.monotonic())

    def _kept_breaches(self) -> list[Breach]:
        """Trips of this car under the bundle that runs."""
        found = []
        for content in kept.breaches(self._state.connection):
            try:
                found.append(decode(content, Breach))
            except TwinError:
                continue
        return [breach for breach in found if breach.bundle == self._running.sha256]

    def _hear_test(self, now: float) -> None:
        problem = self._test.problem(now) if self._test else None
        if problem is None:
            return
        self._test = None
        if problem:
            self._refuse("self_test_failed", problem)
        else:
            self._save(records.staged(self.record, self._clock.unix()))

    # ---- the disk -----------------------------------------------------------------------------

    def _with_known_floor(self, record: Record) -> Record:
        """A record that was damaged knows less than the state."""
        try:
            floor = kept.counters(self._state.connection).get(FLOOR, 0)
        except sqlite3.Error as error:
            self._trouble(error)
            floor = 0
        return msgspec.structs.replace(record, floor=max(record.floor, floor))

    def _resume(self) -> None:
        """Go on with what was under way when the agent ended."""
        try:
            pending, payload = self.record.pending, self._folder.announcement()
            if pending is not None and not pending.is_staged and payload is not None:
                found = authenticate(decode(payload, SignedAnnouncement), self._who)
                if found.announcement is None:
                    self._refuse(found.reason, found.detail)  # its key is trusted no more
                elif found.hash == pending.announcement:
                    self._open(found.announcement)
            self._folder.forget_all_but(self.record.in_use, incoming=self._download is not None)
        except TwinError as error:
            self._trouble(error)  # it comes again with the next connection
        except (OSError, sqlite3.Error) as error:
            self._trouble(error)

    def _open(self, announcement: Announcement) -> None:
        """Begin to fetch, or go on; of a bundle that is there nothing is fetched."""
        if self._folder.has(announcement.bundle):
            self._begin_test(announcement)
            return
        try:
            store = ChunkStore(self._folder.incoming, announcement)
        except NoSpaceError as error:
            self._refuse("no_space", str(error))
            return
        requests = Requests(announcement.chunk_bytes, self._jitter)
        self._download = _Download(announcement, store, requests)

    def _refuse(self, reason: ReleaseReason, detail: str) -> None:
        log.warning("release_refused vehicle=%s why=%s: %s", self._who.vehicle_id, reason, detail)
        self._abandon()
        self._save(records.refused(self.record, reason, detail, self._clock.unix()))
        self._folder.forget_all_but(self.record.in_use, incoming=False)

    def _abandon(self) -> None:
        """Whatever is being fetched or tested."""
        self._download = None
        if self._test is not None:
            self._test.close()
            self._test = None

    def _save(self, record: Record) -> None:
        self._folder.write(record)
        self.record = record

    def _trouble(self, error: Exception) -> None:
        """The disk refuses: what was not written did not happen, and is tried again."""
        self._retry_s = self._clock.monotonic() + RETRY_S
        self._refusals.trouble(error)
