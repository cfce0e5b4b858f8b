"""Begin anew as the same process: another bundle means another model, state and parameters.

`execv` keeps the process id, which systemd watches, and standard input, from which samples may
come. Must be called when state and link are closed.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

log = logging.getLogger(__name__)

RESTART_CODE: Final = 6
"""For a supervisor: start me again."""


def begin_anew() -> int:
    """Does not return; only where the program is no longer there, with RESTART_CODE."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - ourselves
    except OSError as error:
        log.error("restart_failed program=%s why=%r", sys.executable, str(error))  # noqa: TRY400
    return RESTART_CODE
