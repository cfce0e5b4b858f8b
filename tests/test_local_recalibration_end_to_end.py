"""A vehicle helps itself without a broker, then meets the real one and the real service."""

from __future__ import annotations

from pathlib import Path

import httpx

from common.bundle import load_bundle
from common.signing import create_key_pair
from demo.broker import PrivateBroker
from demo.loop import cloud_service, free_port
from edge_agent.agent import Agent
from edge_agent.config import load_config
from edge_agent.service import running_agent
from tests.support_edge import VEHICLE, drive, write_bundle
from tests.waiting import eventually

A_MOMENT_H = 1e-6


def agent_config(folder: Path, port: int) -> Path:
    path = folder / f"agent-{port}.toml"
    path.write_text(
        f'vehicle_id = "{VEHICLE}"\nbundle = "bundle"\nstate = "state.db"\n'
        f'trusted_keys = ["public.pem"]\n[mqtt]\nport = {port}\n'
        f"[local_recalibration]\nafter_offline_h = {A_MOMENT_H}\n"
    )
    return path


def trip(agent: Agent, folder: Path, number: int) -> None:
    bundle = load_bundle(folder / "bundle")
    for sample in drive(bundle, f"trip-{number}", odometer=1000.0 * number):
        agent.take(sample)
    agent.driving.end_trip()
    agent.poll()


def in_force(agent: Agent) -> tuple[int, int]:
    return agent.twin.revision, agent.twin.provisional


def test_what_a_vehicle_made_for_itself_gives_way_to_the_cloud_and_stays_in_the_lineage(
    tmp_path: Path,
) -> None:
    write_bundle(tmp_path / "bundle")
    create_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    with running_agent(load_config(agent_config(tmp_path, free_port()))) as alone:
        trip(alone, tmp_path, 1)
        trip(alone, tmp_path, 2)
        assert in_force(alone) == (0, 1)
    broker = PrivateBroker(source="any").start()
    (tmp_path / "cloud.toml").write_text(
        f'[mqtt]\nport = {broker.port}\n[store]\npath = "cloud.db"\n[bundles]\npaths = ["bundle"]\n'
        f'[keys]\nprivate = "private.pem"\n[api]\nauth = "none"\nport = {free_port()}\n'
    )
    with (
        cloud_service(tmp_path / "cloud.toml", tmp_path / "cloud.log") as (api, _pid),
        running_agent(load_config(agent_config(tmp_path, broker.port))) as agent,
    ):
        assert in_force(agent) == (0, 1)

        def is_over() -> bool:
            agent.poll(0.05)
            return in_force(agent) == (1, 0) and agent.is_drained()

        eventually(is_over, 30.0, "the cloud's revision")
        with httpx.Client(base_url=f"{api}/api/v1/vehicles/{VEHICLE}", trust_env=False) as client:
            [revision] = client.get("/revisions").json()["items"]
            [made] = client.get("/provisionals").json()["items"]
            trips = client.get("/trips").json()["items"]
    broker.close()
    assert (revision["number"], revision["verdict"]) == (1, "applied")
    assert (made["base"], made["step"], made["replaced_by"]) == (0, 1, 1)
    assert [one["provisional"] for one in trips] == [1, 0]
