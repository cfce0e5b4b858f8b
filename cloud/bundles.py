"""The bundles that a service knows, by hash, and one model per thread for each.

Must never share a model between threads: its interpreters are not safe for that.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from cloud.errors import UnknownBundleError
from common.bundle import Bundle, load_bundle
from common.manifest import Manifest
from common.model import VoltageModel


class Catalogue:
    """Bundles by SHA-256 of their manifest."""

    def __init__(self, bundles: Iterable[Bundle]) -> None:
        self._bundles: Mapping[str, Bundle] = {bundle.sha256: bundle for bundle in bundles}
        self._models = _PerThread()

    def add(self, bundle: Bundle) -> None:
        """Know one more from now on. Any thread."""
        self._bundles = {**self._bundles, bundle.sha256: bundle}

    @property
    def hashes(self) -> list[str]:
        """The hash of each bundle."""
        return list(self._bundles)

    def get(self, sha256: str) -> Bundle | None:
        """A bundle, None when the service does not know it."""
        return self._bundles.get(sha256)

    def find(self, sha256: str | None) -> Manifest | None:
        """The manifest of a bundle, None when the service does not know it."""
        bundle = self._bundles.get(sha256) if sha256 else None
        return bundle.manifest if bundle else None

    def manifest(self, sha256: str) -> Manifest:
        """The manifest of a bundle. Raises UnknownBundleError."""
        return self._bundle(sha256).manifest

    def model(self, sha256: str) -> VoltageModel:
        """The calling thread's own model of a bundle. Raises UnknownBundleError, BundleError."""
        if sha256 not in self._models.by_hash:
            self._models.by_hash[sha256] = VoltageModel(self._bundle(sha256))
        return self._models.by_hash[sha256]

    def _bundle(self, sha256: str) -> Bundle:
        try:
            return self._bundles[sha256]
        except KeyError as error:
            raise UnknownBundleError(sha256) from error


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.by_hash: dict[str, VoltageModel] = {}


def load_catalogue(paths: Iterable[Path]) -> Catalogue:
    """Load and try every bundle. Raises BundleError (a model that does not fit included)."""
    catalogue = Catalogue([load_bundle(path) for path in paths])
    for sha256 in catalogue.hashes:
        catalogue.model(sha256)
    return catalogue
