"""Write docs/openapi.json, the API's description, and name what in it breaks a client.

`python tools/write_openapi.py` writes, `--check` only says (exit code 1) whether it would change
anything. Must never hold what the code could tell.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import cloud.api.app

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "openapi.json"

Document = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Write the description, or compare it with what would be written."""
    now = described()
    before = json.loads(PAGE.read_text(encoding="utf-8")) if PAGE.exists() else now
    for change in breaking(before, now):
        print(f"This breaks clients: {change}.", file=sys.stderr)
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text(now):
            return 0
        print(f"{PAGE.relative_to(ROOT)} is out of date: run `make docs`.", file=sys.stderr)
        return 1
    PAGE.write_text(text(now), encoding="utf-8")
    return 0


def described() -> Document:
    """What the service answers at /api/v1/openapi.json."""
    context: Any = None  # the description asks nothing of a database
    found: Document = cloud.api.app.create_app(context).openapi()
    return found


def text(document: Document) -> str:
    """As the file has it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def breaking(before: Document, now: Document) -> Iterator[str]:
    """What a client of `before` would miss, or would have to add."""
    for path, methods in before["paths"].items():
        for method, was in methods.items():
            name = f"{method.upper()} {path}"
            operation = now["paths"].get(path, {}).get(method)
            if operation is None:
                yield f"{name} is gone"
            else:
                yield from _in_parameters(name, was, operation)
    for name, was in before["components"]["schemas"].items():
        schema = now["components"]["schemas"].get(name)
        if schema is not None:
            yield from _in_schema(name, was, schema)


def _in_parameters(name: str, was: Document, operation: Document) -> Iterator[str]:
    before, now = _parameters(was), _parameters(operation)
    yield from (f"{name} does not take {one} any more" for one in before.keys() - now.keys())
    for one, required in now.items():
        if required and not before.get(one, False):
            yield f"{name} needs {one}"


def _parameters(operation: Document) -> dict[str, bool]:
    found = operation.get("parameters", [])
    return {f"{one['in']}.{one['name']}": one.get("required", False) for one in found}


def _in_schema(name: str, was: Document, schema: Document) -> Iterator[str]:
    gone = was.get("properties", {}).keys() - schema.get("properties", {}).keys()
    yield from (f"{name} has no {one} any more" for one in sorted(gone))
    if schema.get("additionalProperties", True) is False:  # what clients send
        needed = set(schema.get("required", [])) - set(was.get("required", []))
        yield from (f"{name} needs {one}" for one in sorted(needed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
