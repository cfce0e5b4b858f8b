"""The direction of dependencies holds: by import-linter's contracts, and by what really loads."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEVER_ON_THE_VEHICLE = {
    "fastapi",
    "matplotlib",
    "pandas",
    "pyarrow",
    "rich",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "sqlmodel",
    "tensorflow",
    "typer",
}
# Import every module of the packages named on the command line; print what is loaded by then.
LOAD_ALL = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({module.partition(".")[0] for module in sys.modules})))
"""


def modules_of(package: str) -> list[str]:
    """Every module of a package in the checkout, less the ones that run when imported."""
    folder = ROOT / package
    found = pkgutil.walk_packages([str(folder)], prefix=f"{package}.")
    return [package, *(module.name for module in found if not module.name.endswith("__main__"))]


def loaded_by(modules: list[str]) -> set[str]:
    """The top-level names that a fresh Python holds after importing these modules."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, *modules],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_the_agent_that_drives_holds_nothing_that_only_other_commands_need() -> None:
    program = "import json, sys, edge_agent.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert not {"cryptography.x509", "can", "cantools", "pyarrow"} & set(json.loads(done.stdout))


def test_the_import_contracts_hold() -> None:
    # In a process of its own: import-linter configures logging, and disables the loggers it finds.
    linter = Path(sys.executable).with_name("lint-imports")
    command = [str(linter), "--config", "pyproject.toml", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("package", ["common", "edge_agent"])
def test_the_vehicle_loads_no_cloud_training_or_plotting_library(package: str) -> None:
    loaded = loaded_by(modules_of(package))
    assert package in loaded
    assert not loaded & NEVER_ON_THE_VEHICLE


def test_the_check_sees_a_forbidden_library_when_one_is_loaded() -> None:
    assert loaded_by(["fastapi"]) & NEVER_ON_THE_VEHICLE == {"fastapi"}


@pytest.mark.parametrize("package", ["common", "edge_agent", "cloud", "firmware_sim"])
def test_every_package_is_marked_as_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
