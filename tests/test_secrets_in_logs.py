"""A service's whole life leaves none of its secrets in what it logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

from common.signing import create_key_pair
from demo.loop import cloud_service
from tests.cloud_doubles import write_bundle
from tests.conftest import BrokerFactory

TWIN_CLOUD = (sys.executable, "-m", "cloud")


def made_key(folder: Path) -> str:
    command = [*TWIN_CLOUD, "api-keys", "create", "--name", "me", "--role", "admin"]
    done = subprocess.run(
        [*command, "--database", "twin.db"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() not in done.stderr
    return done.stdout.strip()


def test_no_secret_of_a_run_is_in_its_log(
    tmp_path: Path, mosquitto_broker_factory: BrokerFactory
) -> None:
    broker = mosquitto_broker_factory()
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    (tmp_path / "private.pem").chmod(0o644)
    config = tmp_path / "twin-cloud.toml"
    config.write_text(
        f'[mqtt]\nport = {broker.port}\n[store]\npath = "twin.db"\n'
        '[bundles]\npaths = ["bundle"]\n[keys]\nprivate = "private.pem"\n[api]\nport = 0\n'
    )
    key = made_key(tmp_path)
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    log = tmp_path / "log"
    with (
        cloud_service(config, log) as (api, _),
        httpx.Client(base_url=api, trust_env=False) as http,
    ):

        def ask(method: str, path: str, shown: str, body: object = None) -> httpx.Response:
            headers = {"Authorization": f"Bearer {shown}"}
            return http.request(method, f"/api/v1{path}", headers=headers, json=body)

        assert http.get("/api/v1/vehicles").status_code == 401
        assert ask("GET", "/vehicles", key).status_code == 200
        assert ask("GET", "/vehicles", wrong).status_code == 401
        assert ask("GET", f"/vehicles?key={key}", key).status_code == 422
        assert ask("GET", f"/{key}", key).status_code == 404
        made = ask("POST", "/api-keys", key, {"name": "x", "role": "viewer"}).json()["key"]
        assert ask("GET", "/vehicles", made).status_code == 200
        assert ask("POST", "/api-keys", key, {"name": made}).status_code == 422
    told = log.read_text(encoding="utf-8")
    assert "api_refused" in told
    assert "secret_file_is_readable" in told
    pem = (tmp_path / "private.pem").read_text(encoding="ascii").splitlines()[1]
    for secret in (key, wrong, made, pem):
        assert secret not in told
        assert secret.split("_", 2)[-1] not in told
