"""Open the source that the configuration names.

The only place that knows which file, stream, bus and clock a source has.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from common.manifest import Manifest
from edge_agent.config import Config
from edge_agent.sources.can_source import opened_can
from edge_agent.sources.items import Item
from edge_agent.sources.leaps import without_leaps
from edge_agent.sources.lines import bounded_lines, read_json_lines
from edge_agent.sources.tables import paced, read_file
from edge_agent.timekeeping.clock import SYSTEM


def opened(config: Config, manifest: Manifest) -> Iterator[Item]:
    """The configured source."""
    source = config.source
    if source.kind == "file":
        items = recorded(config.path(source.path), config, manifest)
        return paced(items, source.speed, time.monotonic, time.sleep)
    if source.kind == "can":
        return opened_can(config, manifest)
    # An object of its own: Python could not close the one in `sys` while the thread waits on it.
    stream = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
    return read_json_lines(bounded_lines(stream), source, manifest, config.trips.signals, SYSTEM)


def recorded(path: Path, config: Config, manifest: Manifest) -> Iterator[Item]:
    """A table at once."""
    extra = config.trips.signals
    return without_leaps(read_file(path, config.source, manifest, config.vehicle_id, extra))
