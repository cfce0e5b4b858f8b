"""Make signed statements of all chains' heads, now and then and at the end, and export them.

What is new since the statement before is checked first, every signature of it: a head says that
somebody looked. Must never sign the head of a chain that does not hold.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session

from cloud.audit import heads
from cloud.audit.head_files import Sink, sink_to
from cloud.audit.walk import Checkpoint, Verified, resumed
from cloud.calibration.revising import Author
from cloud.config import Config
from cloud.errors import HeadsError, HeadsExportError, StoreUnavailableError
from cloud.store import chains
from cloud.store import heads as kept
from cloud.store.database import Store
from common.errors import ChainError
from common.signing import TrustedKeys, key_id, load_public_key

log = logging.getLogger(__name__)

START: Final = Checkpoint(0, "")


@dataclass(frozen=True)
class Made:
    """A new statement's number (None: nothing had changed), and the chains that do not hold."""

    number: int | None
    broken: list[ChainError]


class HeadKeeper:
    """Of a store; one thread only. `trusted` keys may have signed besides the author's own."""

    def __init__(
        self,
        store: Store,
        author: Author,
        clock: Callable[[], float],
        sink: Sink | None = None,
        trusted: TrustedKeys | None = None,
    ) -> None:
        public = author.key.public_key()
        self._trusted = {key_id(public): public, **(trusted or {})}
        self._store, self._author, self._clock, self._sink = store, author, clock, sink

    def run(self, stop: threading.Event, every_s: float) -> None:
        """A statement every `every_s`, and one more when `stop` is set."""
        stopping = False
        while not stopping:
            stopping = stop.wait(every_s)
            self.guarded_turn()

    def guarded_turn(self) -> None:
        """What goes wrong is logged and tried again with the next statement."""
        try:
            made = self.make()
            self.export()
        except (StoreUnavailableError, HeadsError, HeadsExportError) as error:
            log.error("heads_wait error=%r", str(error))  # noqa: TRY400  # it names the cause
        except Exception:
            log.exception("heads_failed")
        else:
            for broken in made.broken:
                log.error("chain_broken vehicle_id=%s error=%r", broken.vehicle_id, str(broken))

    def make(self) -> Made:
        """Check what is new and state it. Raises StoreUnavailableError, HeadsError."""
        with self._store.read() as db:
            before, known = kept.newest(db), kept.current(db)
            if before is not None:
                heads.newest(before, known, self._trusted)
            changed, broken = self._news(db, known)
        if not changed:
            return Made(None, broken)
        now = self._clock()
        signed = heads.make(
            before, known | changed, changed, self._author.key, now, self._author.code_version
        )
        number = heads.read(signed).number
        try:
            with self._store.write() as db:
                kept.add(db, number, signed, changed, now)
        except IntegrityError:  # another process has made that one
            return Made(None, broken)
        log.info("heads_stated statement=%d vehicles=%d", number, len(changed))
        return Made(number, broken)

    def export(self) -> int:
        """Hand on what no sink has taken; how many. Raises HeadsExportError."""
        if self._sink is None:
            return 0
        with self._store.read() as db:
            waiting = kept.unexported(db)
        taken = []
        try:
            for number, signed in waiting:
                self._sink(number, signed)
                taken.append(number)
        finally:
            with self._store.write() as db:
                kept.mark_exported(db, taken, self._clock())
        return len(taken)

    def _news(
        self, db: Session, known: Mapping[str, Checkpoint]
    ) -> tuple[dict[str, Checkpoint], list[ChainError]]:
        """Heads beyond the known ones whose way there holds, and chains that do not."""
        numbers = chains.newest_numbers(db)
        changed: dict[str, Checkpoint] = {}
        broken = [
            ChainError(one, head.number, "a statement knows it, but it is gone")
            for one, head in known.items()
            if numbers.get(one, 0) < head.number
        ]
        for vehicle_id, number in numbers.items():
            head = known.get(vehicle_id, START)
            if number > head.number:
                found = self._walked(db, vehicle_id, head)
                if isinstance(found, ChainError):
                    broken.append(found)
                else:
                    changed[vehicle_id] = Checkpoint(found.number, found.head)
        return changed, broken

    def _walked(self, db: Session, vehicle_id: str, head: Checkpoint) -> Verified | ChainError:
        links = chains.links_after(db, vehicle_id, head.number)
        return resumed(vehicle_id, head, links, self._trusted)


def heads_of(
    config: Config,
    store: Store,
    author: Author,
    clock: Callable[[], float],
    stopping: threading.Event,
) -> tuple[Callable[..., None], threading.Event, float]:
    """What a thread of the service runs, and with what. Raises KeyFileError."""
    return keeper_of(config, store, author, clock).run, stopping, 60.0 * config.heads.every_minutes


def keeper_of(
    config: Config, store: Store, author: Author, clock: Callable[[], float]
) -> HeadKeeper:
    """As the configuration wants it. Raises KeyFileError."""
    wanted = config.heads
    sink = None
    if wanted.keep_in is not None:
        bucket = wanted.keep_in.startswith("s3://")
        sink = sink_to(wanted.keep_in if bucket else str(config.path(wanted.keep_in)))
    keys = [load_public_key(config.path(name)) for name in wanted.trusted_keys]
    return HeadKeeper(store, author, clock, sink, {key_id(key): key for key in keys})
