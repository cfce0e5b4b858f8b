"""The list of what the software is made of is whole; an audit claims no more than it was told."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


def tool(name: str) -> Any:
    """A script of tools/, which is no package."""
    path = Path(__file__).resolve().parent.parent / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit, sbom = tool("audit"), tool("sbom")


def test_every_line_of_a_lock_file_is_looked_for() -> None:
    text = (
        'Uvicorn[standard]==0.54.0 ; python_version >= "3.11" \\\n    --hash=sha256:aa\n'
        "# a comment==1\nimportlib_metadata==8.0\n    # via x\n"
    )
    assert sbom.locked(text) == {("uvicorn", "0.54.0"), ("importlib-metadata", "8.0")}
    assert len(sbom.locked(sbom.LOCK.read_text())) > 100


def package(name: str, *ids: str, **more: str) -> dict[str, Any]:
    vulnerabilities = [{"id": found, "fix_versions": ["2.0"]} for found in ids]
    return {"name": name, "version": "1.0", "vulns": vulnerabilities, **more}


@pytest.mark.parametrize(
    ("found", "code", "told"),
    [
        ("no route to host", 0, "NOT REACHED"),
        ({"dependencies": [package("a", skip_reason="unknown")]}, 0, "NOT REACHED"),
        ({"dependencies": [package("a"), package("b", skip_reason="unknown")]}, 0, "1 of 2"),
        ({"dependencies": [package("a"), package("b", "PYSEC-1")]}, 1, "b 1.0: PYSEC-1"),
    ],
)
def test_an_audit_fails_on_what_was_found_and_says_what_it_was_not_told(
    capsys: pytest.CaptureFixture[str], found: Any, code: int, told: str
) -> None:
    assert audit._report("dev.lock", found) == code
    assert told in capsys.readouterr().err
