"""Where tables for people go: as wide as the terminal, and wide where there is none.

Must never cut a name that somebody may have to type.
"""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

WIDTH_WITHOUT_TERMINAL: Final = 200


def wide_console() -> Console:
    """A console on standard output."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
