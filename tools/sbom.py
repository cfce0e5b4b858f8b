"""Write what the software is made of: a CycloneDX SBOM of the lock file, with licences.

`python tools/sbom.py OUT` writes OUT/sbom.cdx.json and OUT/licences.csv, from requirements/dev.lock
and the installed packages, without a network. Fails when a locked package is not in it. Must never
be edited by hand afterwards: it is made anew for each release.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements" / "dev.lock"
UNKNOWN: Final = "unknown"
_LOCKED: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)
_LONGEST_NAME: Final = 80


def main(arguments: list[str]) -> int:
    """Write both files; 1 where something is missing."""
    out = Path(arguments[0]) if arguments else ROOT / "build"
    out.mkdir(parents=True, exist_ok=True)
    made = _cyclonedx("requirements", str(LOCK), "--pyproject", str(ROOT / "pyproject.toml"))
    licences = _licences()
    for component in made["components"]:
        found = licences.get(_key(component))
        if found:
            component["licenses"] = found
    (out / "sbom.cdx.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    rows = sorted((c["name"], c.get("version", ""), _shown(c)) for c in made["components"])
    with (out / "licences.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("package", "version", "licence"), *rows])
    missing = locked(LOCK.read_text(encoding="utf-8")) - {_key(c) for c in made["components"]}
    unknown = sum(licence == UNKNOWN for _, _, licence in rows)
    print(
        f"{out / 'sbom.cdx.json'}: {len(rows)} packages, {unknown} without a licence here "
        "(not installed on this platform, or none stated)",
        file=sys.stderr,
    )
    for name, version in sorted(missing):
        print(f"sbom: {name} {version} is locked and not in it", file=sys.stderr)
    return 1 if missing else 0


def locked(text: str) -> set[tuple[str, str]]:
    """Name and version of everything in a lock file."""
    return {(_normal(name), version) for name, version in _LOCKED.findall(text)}


def _cyclonedx(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "cyclonedx_py", *arguments, "--output-reproducible", "--of"]
    done = subprocess.run(
        [*command, "JSON"], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        sys.exit(f"sbom: cyclonedx-py failed: {done.stderr[-500:]}")
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def _licences() -> dict[tuple[str, str], list[Any]]:
    """Of what is installed, as its own metadata states it (PEP 639, else the classifiers)."""
    return {
        (_normal(one.name), one.version): stated
        for one in metadata.distributions()
        if (stated := _stated(one.metadata))
    }


def _stated(about: Any) -> list[Any]:
    expression = about.get("License-Expression")
    if expression:
        return [{"expression": expression}]
    prefix = "License :: "
    named = [text.split(" :: ")[-1] for text in about.get_all("Classifier", []) if prefix in text]
    if not named and about.get("License"):
        named = [" ".join(str(about["License"]).split())[:_LONGEST_NAME]]
    return [{"license": {"name": name}} for name in named]


def _key(component: dict[str, Any]) -> tuple[str, str]:
    return _normal(component["name"]), str(component.get("version", ""))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _shown(component: dict[str, Any]) -> str:
    entries = component.get("licenses", [])
    named = [entry.get("expression") or entry["license"]["name"] for entry in entries]
    return "; ".join(dict.fromkeys(named)) or UNKNOWN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
