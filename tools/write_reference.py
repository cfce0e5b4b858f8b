"""Write docs/reference.md from the code: commands, settings, topics, messages, endpoints, errors.

`python tools/write_reference.py` writes, `--check` only says (exit code 1) whether it would change
anything; a test does the same. Must never hold a text that the code could tell.
"""

from __future__ import annotations

import inspect
import os
import runpy
import sys
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
import write_openapi

import cloud.api.app
import cloud.client.errors
import cloud.config
import cloud.errors
import cloud.training.errors
import common.errors
import common.manifest
import common.messages
import common.release
import common.revision
import demo.broker
import demo.loop
import demo.measured
import demo.run
import edge_agent.config
import edge_agent.errors
import firmware_sim.errors
from common.topics import DOWNWARD, UPWARD

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "reference.md"
COMMANDS: Final = (
    ("edge-agent", "edge_agent", ("", "run", "replay", "status", "check", "enroll")),
    (
        "twin-cloud",
        "cloud",
        (
            "",
            "serve",
            "train",
            "sensitivity",
            "import-model",
            "keys",
            "keys create",
            "keys show",
            "api-keys",
            "api-keys create",
            "api-keys list",
            "api-keys rotate",
            "api-keys revoke",
            "ca",
            "ca create",
            "ca revoke",
            "ca publish",
            "ca list",
            "enroll",
            "verify",
            "history",
            "quarantine",
            "health",
            "forecast",
            "range",
            "planned-trip",
            "vehicles",
            "trips",
            "trace",
            "revisions",
            "parameters",
            "diff",
            "summary",
            "events",
            "export",
            "cohort",
            "cohort list",
            "cohort assign",
            "policy",
            "policy show",
            "policy set",
            "policy history",
            "approvals",
            "approve",
            "reject",
            "orders",
            "alarms",
            "alarms acknowledge",
            "webhooks",
            "webhooks list",
            "webhooks add",
            "webhooks remove",
            "fleet-prior",
            "fleet-prior make",
            "fleet-prior show",
            "fleet-prior list",
            "battery-replaced",
            "bundle",
            "bundle announce",
            "bundle status",
            "bundles",
            "bundles list",
            "bundles show",
            "bundles add",
            "rollout",
            "rollout start",
            "rollout list",
            "rollout show",
            "rollout pause",
            "rollout resume",
            "rollout cancel",
            "rollout roll-back",
        ),
    ),
    ("firmware-sim", "firmware_sim", ("", "fleet", "pybamm", "can", "dbc")),
)
ERROR_MODULES: Final = (
    common.errors,
    edge_agent.errors,
    cloud.errors,
    cloud.client.errors,
    cloud.training.errors,
    firmware_sim.errors,
    demo.broker,
    demo.loop,
    demo.measured,
    demo.run,
)
PLAIN: Final = {
    str: "text",
    float: "number",
    int: "integer",
    bool: "true or false",
    type(None): "nothing",
    Any: "anything",
}
HEAD: Final = """# Reference

Written by `make docs` from the code itself; a test fails when this page is out of date.
"""


def main(arguments: list[str]) -> int:
    """Write the page, or compare it with what would be written."""
    page = "\n".join(_page())
    described = write_openapi.main(arguments)
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
            return described
        print(f"{PAGE.relative_to(ROOT)} is out of date: run `make docs`.", file=sys.stderr)
        return 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


def _page() -> Iterator[str]:
    yield HEAD
    yield "## Commands\n"
    for name, module, commands in COMMANDS:
        for command in commands:
            yield from _help(name, module, command.split())
    yield "## Settings of the agent (`agent.toml`)\n"
    yield from _settings(edge_agent.config.Config, without=("base",))
    yield "## Settings of the service (`twin-cloud.toml`)\n"
    yield from _settings(cloud.config.Config, without=("base",))
    yield "## Topics\n"
    yield from _topics()
    yield "## Messages\n"
    for message in (
        common.messages.TripSummary,
        common.messages.Breach,
        common.messages.Trace,
        common.messages.Status,
        common.messages.SignedRevision,
        common.revision.Revision,
        common.revision.Cause,
        common.messages.Acknowledgement,
        common.messages.Receipt,
        common.messages.Declined,
        common.release.SignedAnnouncement,
        common.release.Announcement,
        common.release.AnnouncedFile,
        common.release.Fetch,
        common.release.Chunk,
        common.release.BundleAck,
    ):
        yield from _struct(message)
    yield "## The manifest\n"
    for part in (
        common.manifest.Manifest,
        common.manifest.Feature,
        common.manifest.MovingAverage,
        common.manifest.Parameter,
        common.manifest.Health,
        common.manifest.Sensitivity,
        common.manifest.SobolIndex,
        common.manifest.PairIndex,
        common.manifest.GroupIndex,
        common.manifest.Identifiability,
        common.manifest.Learnt,
    ):
        yield from _struct(part)
    yield "## Operator API\n"
    yield from _endpoints()
    yield "## Errors\n"
    yield from _errors()


def _help(name: str, module: str, command: list[str]) -> Iterator[str]:
    lines = [line.rstrip() for line in _said(module, [*command, "--help"]).strip().splitlines()]
    yield f"### `{' '.join([name, *command])}`\n"
    yield "```text\n" + "\n".join(lines) + "\n```\n"


def _said(module: str, arguments: list[str]) -> str:
    """What a program prints, run in a fork of this process: a hundred of them are loaded once."""
    with tempfile.TemporaryFile() as file:
        child = os.fork()
        if child == 0:
            os.dup2(file.fileno(), 1)
            os.environ |= {"COLUMNS": "88", "NO_COLOR": "1", "TERM": "dumb"}
            os._exit(_ended(module, arguments))
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            problem = f"{module} {' '.join(arguments)} failed"
            raise RuntimeError(problem)
        file.seek(0)
        return file.read().decode()


def _ended(module: str, arguments: list[str]) -> int:
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        sys.stdout.flush()
        return int(ended.code or 0)
    return 1


def _settings(
    struct: type[msgspec.Struct], prefix: str = "", without: tuple[str, ...] = ()
) -> Iterator[str]:
    """One table per TOML table, the nested ones after their parent."""
    nested: list[tuple[str, type[msgspec.Struct]]] = []
    if prefix:
        yield f"### `[{prefix}]`\n"
        yield f"{_first_line(struct)}\n"
    rows = []
    for field in msgspec.structs.fields(struct):
        inner = _struct_in(field.type)
        if inner is not None:
            nested.append((f"{prefix}.{field.name}".lstrip("."), inner))
        elif field.name not in without:
            rows.append(f"| `{field.name}` | {_type_name(field.type)} | {_default(field)} |")
    if rows:
        yield "| key | type | default |\n| --- | --- | --- |"
        yield "\n".join(rows) + "\n"
    for name, inner in nested:
        yield from _settings(inner, name)


def _topics() -> Iterator[str]:
    yield "| topic | from |\n| --- | --- |"
    for kind in UPWARD:
        yield f"| `twin/v1/<vehicle_id>/{kind}` | vehicle |"
    for kind in DOWNWARD:
        yield f"| `twin/v1/<vehicle_id>/{kind}` | cloud |"
    yield ""


def _struct(struct: type[msgspec.Struct]) -> Iterator[str]:
    yield f"### `{struct.__name__}`\n"
    yield f"{_text(struct)}\n"
    yield "| field | type | default |\n| --- | --- | --- |"
    for field in msgspec.structs.fields(struct):
        yield f"| `{field.name}` | {_type_name(field.type)} | {_default(field)} |"
    yield ""


def _endpoints() -> Iterator[str]:
    context: Any = None  # the description asks nothing of a database
    schema = cloud.api.app.create_app(context).openapi()
    yield "| method | path | answers |\n| --- | --- | --- |"
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            first = operation["description"].splitlines()[0]
            yield f"| {method.upper()} | `{path}` | {first} |"
    yield "\nThe whole description, with every field: `GET /api/v1/openapi.json`.\n"


def _errors() -> Iterator[str]:
    for module in ERROR_MODULES:
        found = [error for _, error in inspect.getmembers(module, inspect.isclass)]
        own = [e for e in found if issubclass(e, Exception) and e.__module__ == module.__name__]
        if own:
            yield from _error_table(module, own)


def _error_table(module: ModuleType, errors: list[type[Exception]]) -> Iterator[str]:
    yield f"### `{module.__name__}`\n"
    yield "| error | means |\n| --- | --- |"
    for error in sorted(errors, key=lambda error: error.__name__):
        yield f"| `{error.__name__}` | {_first_line(error)} |"
    yield ""


def _struct_in(kind: Any) -> type[msgspec.Struct] | None:
    """The nested table of a field, also of an optional one."""
    for candidate in (kind, *typing.get_args(kind)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


def _type_name(kind: Any) -> str:
    """As a person would say it: constraints in brackets, alternatives joined by *or*."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return f"{_type_name(arguments[0])}{_limits(arguments[1])}"
    if origin is typing.Literal:
        return " or ".join(f"`{value!r}`" for value in arguments)
    if origin is list:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"table of {_type_name(arguments[1])}"
    if arguments:
        return " or ".join(_type_name(argument) for argument in arguments)
    return PLAIN.get(kind, getattr(kind, "__name__", str(kind)))


def _limits(meta: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "from", "max_length": "to"}
    told = [
        f"{sign} {getattr(meta, name):g}"
        for name, sign in signs.items()
        if getattr(meta, name) is not None
    ]
    if meta.pattern is not None:
        told.append(f"`{meta.pattern}`")
    return f" ({', '.join(told)})" if told else ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is not msgspec.NODEFAULT:
        return f"`{field.default!r}`"
    factory: Any = field.default_factory
    return f"`{factory()!r}`"


def _first_line(thing: type) -> str:
    return _text(thing).splitlines()[0]


def _text(thing: type) -> str:
    text = inspect.getdoc(thing)
    if not text:
        message = f"{thing.__module__}.{thing.__qualname__} has no docstring"
        raise ValueError(message)
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
