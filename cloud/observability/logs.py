"""Logging of the service: one line an event, key=value, times in UTC.

Must never write to stdout: that belongs to data.
"""

from __future__ import annotations

import logging
import sys
import time


def configure_logging() -> None:
    """Send every log line of level INFO and above to stderr."""
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ level=%(levelname)s logger=%(name)s event=%(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # paho says so at each attempt; the link says it once, with the address and the cause.
    logging.getLogger("cloud.paho").addFilter(lambda line: "not connected" not in line.getMessage())
    for noisy in ("uvicorn", "cloud.paho"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
