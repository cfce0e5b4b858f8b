"""Keep the TFLite runtime's greeting off the terminal, and lose nothing else that is said.

The C++ library writes one INFO line to file descriptor 2 when it first makes a delegate; Python
cannot ask it not to. Must never swallow another line.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."


@contextmanager
def without_greeting() -> Iterator[None]:
    """What is written to standard error meanwhile comes out afterwards, less the greeting."""
    try:
        sys.stderr.flush()
        own = os.dup(2)
    except (OSError, AttributeError):  # no standard error: nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(own, 2)
            os.close(own)
            said.seek(0)
            rest = said.read().replace(GREETING + b"\n", b"")
            if rest:
                os.write(2, rest)
