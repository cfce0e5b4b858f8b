"""Ask a vulnerability service about everything that is locked: `python tools/audit.py`.

Fails on a vulnerability that was found, and on nothing else: a service that is not reached, or does
not know the packages, is said aloud, for a build must not depend on somebody else's uptime. Must
never say that all is well without having been told so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCKS: Final = ("dev.lock", "edge-can.lock")
TIMEOUT_S: Final = 45


def main() -> int:
    """1 where a vulnerability was found."""
    return max(_report(lock, _audit(ROOT / "requirements" / lock)) for lock in LOCKS)


def _audit(lock: Path) -> dict[str, Any] | str:
    """What pip-audit says, or why it says nothing."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--disable-pip"]
    command += ["--require-hashes", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return (done.stderr.strip().splitlines() or ["no answer"])[-1][:300]
    return found


def _report(lock: str, found: dict[str, Any] | str) -> int:
    """Tell a person; 1 where something was found."""
    if isinstance(found, str):
        _tell(f"NOT REACHED: nothing is known about {lock} ({found})")
        return 0
    packages = found["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    bad = [package for package in asked if package["vulns"]]
    for package in bad:
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "none yet"
            _tell(f"{package['name']} {package['version']}: {one['id']}, fixed in {fixed}")
    if not asked:
        _tell(f"NOT REACHED: the service knows none of the {len(packages)} packages of {lock}")
    else:
        _tell(
            f"{lock}: {len(asked)} of {len(packages)} packages known to the service, "
            f"{len(bad)} of them vulnerable"
        )
    return 1 if bad else 0


def _tell(sentence: str) -> None:
    print(f"audit: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
