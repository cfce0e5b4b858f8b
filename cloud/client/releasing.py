"""Bundles, and how they come to vehicles in stages.

Must never send a bundle that it has not been given: what a folder holds is its caller's to read.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloud.api import bundle_schemas, rollout_schemas
from cloud.api.operator_schemas import Verdict
from cloud.client.ordering import Ordering

V1 = "/api/v1"


class Releasing(Ordering):
    """Operations on bundles and roll-outs."""

    def list_bundles(self) -> Iterator[bundle_schemas.BundleItem]:
        """Every bundle that the service knows."""
        return self.pages(bundle_schemas.BundleItem, f"{V1}/bundles")

    def get_bundle(self, sha256: str) -> bundle_schemas.BundleDetail:
        """One bundle with its manifest."""
        return self.get(bundle_schemas.BundleDetail, f"{V1}/bundles/{sha256}")

    def add_bundle(
        self, told: bundle_schemas.BundleUpload, *, dry_run: bool = False
    ) -> bundle_schemas.BundleDetail:
        """Let the service try a bundle and keep its files."""
        kind = bundle_schemas.BundleDetail
        return self._write("POST", kind, f"{V1}/bundles", told, dry_run=dry_run)

    def list_rollouts(self, **params: object) -> Iterator[rollout_schemas.RolloutItem]:
        """Roll-outs, the one begun last first."""
        return self.pages(rollout_schemas.RolloutItem, f"{V1}/rollouts", **params)

    def get_rollout(self, name: str) -> rollout_schemas.RolloutDetail:
        """How far a roll-out is."""
        return self.get(rollout_schemas.RolloutDetail, f"{V1}/rollouts/{name}")

    def start_rollout(
        self, told: rollout_schemas.RolloutStart, *, dry_run: bool = False
    ) -> rollout_schemas.RolloutDetail:
        """Begin a roll-out; a dry run says how many vehicles each stage has."""
        kind = rollout_schemas.RolloutDetail
        return self._write("POST", kind, f"{V1}/rollouts", told, dry_run=dry_run)

    def pause_rollout(
        self, name: str, told: Verdict, *, dry_run: bool = False
    ) -> rollout_schemas.RolloutDetail:
        """Order for no further vehicle."""
        return self._tell(name, "pause", told, dry_run=dry_run)

    def resume_rollout(
        self, name: str, told: Verdict, *, dry_run: bool = False
    ) -> rollout_schemas.RolloutDetail:
        """Go on where it was paused or has halted."""
        return self._tell(name, "resume", told, dry_run=dry_run)

    def cancel_rollout(
        self, name: str, told: Verdict, *, dry_run: bool = False
    ) -> rollout_schemas.RolloutDetail:
        """End it."""
        return self._tell(name, "cancel", told, dry_run=dry_run)

    def roll_back_rollout(
        self, name: str, told: Verdict, *, dry_run: bool = False
    ) -> rollout_schemas.RolloutDetail:
        """End it, and order the old bundle where the new one was not refused."""
        return self._tell(name, "roll-back", told, dry_run=dry_run)

    def _tell(
        self, name: str, verb: str, told: Verdict, *, dry_run: bool
    ) -> rollout_schemas.RolloutDetail:
        path, kind = f"{V1}/rollouts/{name}/{verb}", rollout_schemas.RolloutDetail
        return self._write("POST", kind, path, told, dry_run=dry_run)
