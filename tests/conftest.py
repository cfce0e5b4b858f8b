"""Fixtures shared by all tests: private brokers and clients, all ended with the test."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
from hypothesis import settings

from cloud.location import PostgresUrl
from cloud.store.database import Store
from demo.broker import BrokerTls, BrokerUnavailable, PrivateBroker, Source
from demo.database import DatabaseUnavailable, PrivatePostgres
from tests.mqtt_peer import Connect, Peer
from tests.waiting import eventually

__all__ = ["BrokerFactory", "Connect", "eventually"]

TEMPLATE = "twin_template"

# A test that exceeds `timeout` (pyproject.toml) ends its whole worker, because the thread method
# cannot interrupt it otherwise: xdist then says "node down: Not properly terminated" and names the
# test that ran. On a machine that does much else at the same time, read that as "too slow".

# The same examples in every run, and no verdict that depends on how busy the machine is.
settings.register_profile("twin", derandomize=True, deadline=None)
settings.load_profile("twin")


class BrokerFactory(Protocol):
    """Start one more private broker; all of them end with the session."""

    def __call__(
        self,
        *,
        source: Source = "mosquitto",
        port: int | None = None,
        config_lines: tuple[str, ...] = (),
        tls: BrokerTls | None = None,
    ) -> PrivateBroker: ...


@pytest.fixture
def broker() -> Iterator[PrivateBroker]:
    """A fresh broker, the best that this machine can run."""
    with PrivateBroker() as private:
        yield private


@pytest.fixture
def mosquitto(mosquitto_broker_factory: BrokerFactory) -> PrivateBroker:
    """A fresh Mosquitto, for what only the real broker can show."""
    return mosquitto_broker_factory()


@pytest.fixture
def amqtt() -> Iterator[PrivateBroker]:
    """A fresh embedded broker."""
    with PrivateBroker(source="amqtt") as private:
        yield private


@pytest.fixture(scope="session")
def mosquitto_broker_factory() -> Iterator[BrokerFactory]:
    """Start Mosquittos. Skips without one, unless TWIN_REQUIRE_MOSQUITTO asks for a failure."""
    with ExitStack() as running:

        def start(
            *,
            source: Source = "mosquitto",
            port: int | None = None,
            config_lines: tuple[str, ...] = (),
            tls: BrokerTls | None = None,
        ) -> PrivateBroker:
            try:
                private = PrivateBroker(
                    source=source, port=port, config_lines=config_lines, tls=tls
                )
            except BrokerUnavailable as error:
                if os.environ.get("TWIN_REQUIRE_MOSQUITTO"):
                    raise
                pytest.skip(str(error))
            return running.enter_context(private)

        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    """A server for all tests of this process, on which `database` makes each its own database.

    Skips without PostgreSQL, unless TWIN_REQUIRE_POSTGRES asks for a failure.
    """
    try:
        server = PrivatePostgres(durable=False)
    except DatabaseUnavailable as error:
        if os.environ.get("TWIN_REQUIRE_POSTGRES"):
            raise
        pytest.skip(str(error))
    with server:
        Store(PostgresUrl(server.create(TEMPLATE))).close()
        yield server


@pytest.fixture
def postgres_database(postgres: PrivatePostgres) -> Iterator[PostgresUrl]:
    """A database with the service's tables, and nothing in them."""
    name = f"twin_{secrets.token_hex(8)}"
    yield PostgresUrl(postgres.create(name, TEMPLATE))
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> PostgresUrl | None:
    """The test runs on both: on a file of its own (None), and on a database of PostgreSQL."""
    if request.param == "sqlite":
        return None
    found: PostgresUrl = request.getfixturevalue("postgres_database")
    return found


ON_BOTH = pytest.mark.parametrize("inside", ["sqlite", "postgresql"], indirect=True)
"""For a module whose fixture `inside` asks `chosen` where to keep its tables."""


def chosen(request: pytest.FixtureRequest) -> PostgresUrl | None:
    """What a test marked ON_BOTH runs on; None, a file of its own, for the others, too."""
    if getattr(request, "param", None) != "postgresql":
        return None
    found: PostgresUrl = request.getfixturevalue("postgres_database")
    return found


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open peers that the test need not close."""
    peers: list[Peer] = []

    def opened(*arguments: Any, **options: Any) -> Peer:
        peers.append(Peer(*arguments, **options))
        return peers[-1]

    yield opened
    for peer in peers:
        peer.close()
