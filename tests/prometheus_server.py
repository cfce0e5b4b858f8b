"""A real Prometheus for tests: installed, or Debian's package unpacked beside the brokers."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo.debian_packages import PackageUnavailableError, unpack
from demo.mosquitto_binary import broker_home
from tests.waiting import eventually


def programs() -> Path:
    """The folder of prometheus and promtool.

    Skips without them, unless TWIN_REQUIRE_PROMETHEUS asks for a failure.
    """
    installed = shutil.which("prometheus")
    if installed and shutil.which("promtool"):
        return Path(installed).parent
    tree = broker_home() / f"prometheus-{platform.machine()}"
    try:
        unpack("prometheus", tree)
    except PackageUnavailableError as error:
        if os.environ.get("TWIN_REQUIRE_PROMETHEUS"):
            raise
        pytest.skip(str(error))
    return tree / "usr/bin"


def promtool(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [str(programs() / "promtool"), *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)


class Prometheus:
    """The HTTP API of a running server."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def ask(self, query: str) -> list[float]:
        """The values of an instant query; an invalid one fails the test."""
        answer = self._client.get("/api/v1/query", params={"query": query})
        body: dict[str, Any] = answer.json()
        assert body["status"] == "success", f"{query}: {body.get('error')}"
        return [float(one["value"][1]) for one in body["data"]["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """The loaded rules, with their health."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[Prometheus]:
    """A server with that configuration, its data in `folder`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *(str(programs() / "prometheus"), f"--config.file={config}"),
        *(f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"),
    ]
    with (folder / "prometheus.log").open("w") as log, subprocess.Popen(command, stderr=log) as it:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
                server = Prometheus(client)
                eventually(server.is_up, 60.0, "the start of Prometheus")
                yield server
        finally:
            it.kill()
