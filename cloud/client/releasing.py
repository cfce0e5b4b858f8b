"""Bundles, and how they come to vehicles in stages.

Must never send a bundle that it has not been given: what a folder holds is its caller's to read.
"""

from __future__ import annotations

from collections.abc import Iterator

from cloud.api import bundle_schemas
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
