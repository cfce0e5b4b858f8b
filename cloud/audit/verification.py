"""Verify all chains of a database on all processors, and say how far it has come.

Each process opens the database for itself and walks some vehicles. Must never report a vehicle as
good that no process has walked.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.audit.walk import Found, Heads, Verified
from cloud.store import chains, verification
from cloud.store.chains import Span
from cloud.store.database import Reader
from common.errors import ChainError
from common.signing import TrustedKeys

AT_ONCE: Final = 20_000
"""Revisions of one task: small enough to show progress, large enough not to matter."""
HASH_S: Final = 25e-6
SIGNATURE_S: Final = 120e-6
"""About how long one takes (bench.verification): the signature with the hash."""
WORTH_A_PROCESS_S: Final = 4.0
"""A process takes seconds to start, more on a busy machine."""

Opener = Callable[[], Reader]
Progress = Callable[[int, int], None]
"""Is told how many revisions of how many have been walked."""


@dataclass(frozen=True)
class Outcome:
    """What the walk found: the broken chains, and the heads of those that hold when wanted."""

    vehicles: int
    revisions: int
    broken: Sequence[ChainError]
    holding: Sequence[Verified] = field(default=())


@dataclass(frozen=True)
class _Task:
    """A span of vehicles; keys are bytes and not objects, to be sent to another process."""

    open: Opener
    span: Span
    revisions: int
    keys: dict[str, bytes]
    heads: Heads
    every_signature: bool


def verify(
    open_reader: Opener,
    trusted: TrustedKeys,
    heads: Heads,
    *,
    every_signature: bool = False,
    processes: int | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Outcome:
    """Walk everything. `open_reader` must be picklable. Raises StoreError, StoreUnavailableError.

    What trusted `heads` cover is proven by hashes, the rest by signatures; with `every_signature`
    all of it.
    """
    with closing(open_reader()) as reader, reader.read() as db:
        counts = chains.counts(db)
    keys = {name: key.public_bytes_raw() for name, key in trusted.items()}
    tasks = [
        _Task(open_reader, span, size, keys, _heads_of(heads, ids), every_signature)
        for span, size, ids in _spans(counts)
    ]
    total = sum(count for _, count in counts)
    covered = 0 if every_signature else sum(head.number for head in heads.newest.values())
    found: list[Found] = []
    done = 0
    for task, results in _run(tasks, processes or worthwhile(total, covered)):
        found += results
        done += task.revisions
        progress(done, total)
    seen = {one.vehicle_id for one in found}
    return _outcome([*found, *verification.gone(heads, seen)])


def worthwhile(revisions: int, covered: int) -> int:
    """How many processes, when heads cover so many: one where others would start for too long."""
    hashes = min(revisions, covered)
    walk_s = HASH_S * hashes + SIGNATURE_S * (revisions - hashes)
    return min(os.cpu_count() or 1, 1 + int(walk_s / WORTH_A_PROCESS_S))


def _spans(counts: Sequence[tuple[str, int]]) -> Iterator[tuple[Span, int, list[str]]]:
    """Spans that together hold every id there could be, with the vehicles known in each."""
    after, size, ids = None, 0, list[str]()
    for vehicle_id, count in counts:
        if size and size + count > AT_ONCE:
            yield Span(after, ids[-1]), size, ids
            after, size, ids = ids[-1], 0, []
        size += count
        ids.append(vehicle_id)
    yield Span(after, None), size, ids


def _heads_of(heads: Heads, ids: Iterable[str]) -> Heads:
    some = list(ids)
    return Heads(
        {one: heads.newest[one] for one in some if one in heads.newest},
        {one: heads.earlier[one] for one in some if one in heads.earlier},
    )


def _run(tasks: Sequence[_Task], processes: int) -> Iterator[tuple[_Task, list[Found]]]:
    if processes == 1:
        for task in tasks:
            yield task, _walk(task)
        return
    # A forked child would share the parent's connections and locks.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        pending = {pool.submit(_walk, task): task for task in tasks}
        for future in as_completed(pending):
            yield pending[future], future.result()


def _walk(task: _Task) -> list[Found]:
    trusted = {name: Ed25519PublicKey.from_public_bytes(raw) for name, raw in task.keys.items()}
    with closing(task.open()) as reader, reader.read() as db:
        return list(
            verification.verify_span(
                db, trusted, task.heads, task.span, every_signature=task.every_signature
            )
        )


def _outcome(found: Sequence[Found]) -> Outcome:
    holding = [one for one in found if isinstance(one, Verified)]
    broken = [one for one in found if isinstance(one, ChainError)]
    return Outcome(
        vehicles=len(found),
        revisions=sum(one.revisions for one in holding),
        broken=sorted(broken, key=lambda one: one.vehicle_id),
        holding=sorted(holding, key=lambda one: one.vehicle_id),
    )
