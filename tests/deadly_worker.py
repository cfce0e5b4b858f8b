"""`twin-cloud` whose process ends, without a word, over every breach at one odometer.

As a calibration would that makes a library crash. For tests/test_cloud_roles.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from cloud import cli
from cloud.calibration import rounds
from common.calibrator import Case, Decision, decide

DEADLY_ODOMETER: Final = 2000.0
CODE: Final = 86


def deadly(cases: Sequence[Case], *arguments: Any) -> list[Decision]:
    """As `decide`, for as long as it lasts."""
    if any(case.odometer == DEADLY_ODOMETER for case in cases):
        os._exit(CODE)
    return decide(cases, *arguments)


if __name__ == "__main__":
    rounds.decide = deadly  # type: ignore[assignment,attr-defined]
    sys.exit(cli.main())
