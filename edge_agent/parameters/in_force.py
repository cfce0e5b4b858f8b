"""What drives, and what changes it: the chain's revisions, trials, the vehicle's own steps, keys.

`base` is always the twin of the chain's revision, `twin` what the next trip is driven on. Must
never touch the link: whoever calls says what has changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from common.messages import Breach, Declined
from common.model import VoltageModel
from edge_agent.config import LocalRecalibration as LocalSettings
from edge_agent.parameters import key_intake, revision_intake, trials
from edge_agent.parameters.decisions import Identity, Verdict
from edge_agent.parameters.local_recalibration import LocalRecalibration
from edge_agent.parameters.trials import TrialEnd
from edge_agent.storage.refusals import Refusals
from edge_agent.storage.state import State
from edge_agent.timekeeping.timekeeper import Timekeeper


class InForce:
    """Of one vehicle. `identity` carries the keys that it believes now."""

    def __init__(
        self,
        identity: Identity,
        model: VoltageModel,
        state: State,
        time: Timekeeper,
        refusals: Refusals,
        local: LocalSettings | None = None,
    ) -> None:
        self.identity = identity
        self.base = self.twin = revision_intake.restore_twin(state, identity, model)
        self._state, self._time, self._refusals = state, time, refusals
        self._local: LocalRecalibration | None = None
        if local is not None:
            self._local = LocalRecalibration(local, state, identity, time)
            self.twin = self._local.restored(self.base)

    @property
    def newest_judged(self) -> int:
        """The number of the newest revision that has come."""
        return revision_intake.newest_judged(self._state, self.identity, self.twin)

    def connected(self) -> None:
        """The broker is there: the vehicle need not help itself."""
        if self._local is not None:
            self._local.connected()

    def disconnected(self) -> None:
        """The broker is gone; may be said again while it is."""
        if self._local is not None:
            self._local.disconnected()

    def after_trips(self, saved: Iterable[Breach | None], ends: deque[TrialEnd]) -> int:
        """What these trips, now on disk, change; how many revisions fell back."""
        fallen_back = 0
        while ends:
            end = ends.popleft()
            fallen_back += end.fell_back
            base, self.base = self.base, trials.after(self.base, end)
            if end.fell_back or self.twin is base:
                self._run_base(f"revision {end.revision} has ended its trial")
        if self._local is not None:
            for breach in saved:
                if breach is not None:
                    self.twin = self._local.after(breach, self.twin)
        return fallen_back

    def take_revision(self, payload: bytes) -> Verdict | None:
        """Judge it, keep the verdict, and run what it says; None when it is no news.

        Raises ContractError when it is no signed revision, StorageError: then nothing has changed.
        """
        verdict = revision_intake.consider(payload, self.base, self._state, self.identity)
        if verdict is None:
            return None
        if not verdict.applied:
            self._refusals.message(f"{verdict.reason}: {verdict.detail}", payload)
        revision_intake.record(verdict, payload, self._state, self.identity, self._time.now())
        if verdict.applied:
            self.base = revision_intake.applied(verdict, self.identity, self.base)
            self._run_base(f"revision {self.base.revision} has come")
        return verdict

    def hear_declined(self, declined: Declined) -> None:
        """The cloud's word on a breach ends what the vehicle made of it."""
        if self._local is not None and self._local.is_ended_by(declined.message_id):
            self._run_base("the cloud declined its breach")

    def take_keys(self, payload: bytes) -> bool:
        """Whether other keys are believed now; what was judged before stays in force.

        Raises ContractError, StorageError: then nothing has changed.
        """
        trusted = key_intake.take_statements(payload, self.identity.trusted, self._state)
        is_new = trusted is not self.identity.trusted
        if is_new:
            self.identity = replace(self.identity, trusted=trusted)
        return is_new

    def _run_base(self, why: str) -> None:
        """What the vehicle made for itself gives way to the chain."""
        self.twin = self.base
        if self._local is not None:
            self._local.drop(why)
