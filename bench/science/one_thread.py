"""One thread for numpy's linear algebra: several processes share the cores, and times compare."""

from __future__ import annotations

from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


def one_thread() -> Any:
    """A context in which BLAS and OpenMP keep to one thread."""
    return threadpool_limits(1)
