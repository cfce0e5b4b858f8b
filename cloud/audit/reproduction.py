"""Compute a revision again from what it was made from, and say what differs.

Bit for bit on the same platform: a vehicle's result does not depend on the others that were
calibrated with it (tests/test_common_batch_bits.py). Must never write.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec
from sqlmodel import Session

import cloud
from cloud.audit import inputs as kept
from cloud.audit.inputs import Inputs, this_platform
from cloud.bundles import Catalogue
from cloud.calibration import fleet_priors as priors
from cloud.calibration.revising import case_of, revised, started
from cloud.errors import FleetPriorError, ReproductionError, TraceFileError, TraceGoneError
from cloud.store import fleet_priors, revisions
from cloud.store.pending_breaches import History
from cloud.store.tables import Breach, RevisionRow
from cloud.traces.archive import Archive
from cloud.traces.reading import whole
from common import calibration
from common.calibrator import Decline, decide
from common.errors import ContractError
from common.fleet_prior import FleetPrior
from common.revision import Revision, decode_revision, encode_revision


@dataclass(frozen=True)
class Difference:
    """A field of the content: what is stored, and what came now."""

    field: str
    stored: Any
    computed: Any


@dataclass(frozen=True)
class Reproduction:
    """`differences` is empty where every byte is the same; `warnings` say what may excuse some."""

    vehicle_id: str
    number: int
    kind: str
    differences: list[Difference]
    warnings: list[str]

    @property
    def same(self) -> bool:
        """Every byte of the signed content."""
        return not self.differences


def reproduce(
    db: Session, catalogue: Catalogue, row: RevisionRow, archive: Archive | None = None
) -> Reproduction:
    """Raises ReproductionError: something that it was made from is not there.

    Raises TraceArchiveError: the archive of traces does not answer.
    """
    return _Again(db, catalogue, row, archive).result()


class _Again:
    """One revision, and where its inputs come from."""

    def __init__(
        self, db: Session, catalogue: Catalogue, row: RevisionRow, archive: Archive | None
    ) -> None:
        self._db, self._catalogue, self._row, self._archive = db, catalogue, row, archive
        if row.inputs is None:
            self._fail("it is of a version that did not keep what revisions were made from")
        try:
            self._revision = decode_revision(row.content)
            self._inputs = kept.decode(row.inputs or b"")
        except ContractError as error:
            self._fail(str(error))

    def result(self) -> Reproduction:
        differences = self._compared(self._computed())
        return Reproduction(
            self._row.vehicle_id,
            self._row.number,
            self._row.kind,
            differences,
            list(_warnings(self._revision, self._inputs)),
        )

    def _compared(self, computed: Revision | Decline) -> list[Difference]:
        if isinstance(computed, Decline):
            return [Difference("decision", "a revision", computed.reason)]
        differences = list(_differences(self._revision, computed))
        if not differences and encode_revision(computed) != self._row.content:
            differences = [Difference("content", "bytes", "other bytes for equal fields")]
        return differences

    def _computed(self) -> Revision | Decline:
        """What calibration says; who, when and where in the chain are as they were."""
        match self._revision.cause.kind:
            case "roll_back":
                return self._rolled_back()
            case "fleet_prior" | "replacement":
                return self._started()
            case _:
                return self._calibrated()

    def _calibrated(self) -> Revision | Decline:
        made, manifest = self._revision, self._catalogue.find(self._revision.bundle)
        if manifest is None:
            self._fail(f"bundle {made.bundle[:12]} is none of this service's")
        history, prior, breach = self._history(), self._prior(), self._breach()
        case = case_of(breach, history, manifest, prior)
        if isinstance(case, Decline):
            return case
        model = self._catalogue.model(made.bundle)
        [decision] = decide([case], model, manifest, self._inputs.settings)
        if isinstance(decision, Decline):
            return decision
        return revised(made, breach, history, decision, prior)

    def _history(self) -> History:
        base = self._numbered(self._revision.base) if self._revision.base else None
        running = base
        if self._inputs.running != self._revision.base:
            running = self._numbered(self._inputs.running) if self._inputs.running else None
        return History(
            base=base,
            running=running,
            failures=self._inputs.failures,
            battery_from=self._inputs.battery_from,
        )

    def _breach(self) -> Breach:
        cause = self._revision.cause
        wanted = cause.replays or cause.message_id
        found = revisions.breaches_of(self._db, self._row.vehicle_id, [wanted])
        if not found:
            self._fail(f"breach {wanted} is not kept any more")
        try:
            return whole(self._db, self._archive, found[0])
        except (TraceGoneError, TraceFileError) as error:
            self._fail(error.problem)

    def _prior(self) -> FleetPrior | None:
        version = self._inputs.prior
        if version == 0:
            return None
        row = fleet_priors.by_version(self._db, self._revision.bundle, version)
        if row is None:
            self._fail(f"version {version} of the fleet's prior is not there")
        try:
            return priors.read(row)
        except FleetPriorError as error:
            self._fail(str(error))

    def _started(self) -> Revision:
        made, manifest = self._revision, self._catalogue.find(self._revision.bundle)
        if manifest is None:
            self._fail(f"bundle {made.bundle[:12]} is none of this service's")
        estimate, version = started(
            self._prior(), manifest, made.odometer, self._inputs.battery_from
        )
        fields = calibration.carried(estimate)
        return msgspec.structs.replace(made, **fields, prior_version=version, base=0)

    def _rolled_back(self) -> Revision:
        made = self._revision
        wanted = decode_revision(self._numbered(made.cause.returns_to).content)
        return msgspec.structs.replace(
            wanted,
            base=wanted.number,
            **{name: getattr(made, name) for name in _OF_THE_CHAIN},
        )

    def _numbered(self, number: int) -> RevisionRow:
        row = revisions.by_number(self._db, self._row.vehicle_id, number)
        if row is None:
            self._fail(f"revision {number}, which it came from, is not there")
        return row

    def _fail(self, problem: str) -> NoReturn:
        raise ReproductionError(self._row.vehicle_id, self._row.number, problem)


_OF_THE_CHAIN = (
    "number",
    "resumes_after",
    "parent_hash",
    "cause",
    "created_at",
    "code_version",
    "inputs_hash",
)


def _differences(stored: Revision, computed: Revision) -> Iterator[Difference]:
    for name in stored.__struct_fields__:
        was, came = getattr(stored, name), getattr(computed, name)
        if encode_field(was) != encode_field(came):
            yield Difference(name, msgspec.to_builtins(was), msgspec.to_builtins(came))


def encode_field(value: object) -> bytes:
    """As it stands in the content: 0.0 and -0.0 are not the same."""
    return msgspec.json.encode(value)


def _warnings(revision: Revision, inputs: Inputs) -> Iterator[str]:
    if revision.code_version != cloud.__version__:
        yield f"it was made by version {revision.code_version}, this is {cloud.__version__}"
    if inputs.platform != this_platform():
        yield f"it was made on {inputs.platform!r}, this is {this_platform()!r}"
