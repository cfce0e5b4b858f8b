"""The private broker keeps its promises: start, kill, restart, and errors that say what to do."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from demo.broker import BrokerTls, BrokerUnavailable, PortInUse, PrivateBroker, Source
from demo.debian_packages import can_unpack
from tests.conftest import BrokerFactory, Connect, eventually


@pytest.fixture(params=["mosquitto", "amqtt"])
def each_kind(
    request: pytest.FixtureRequest, mosquitto_broker_factory: BrokerFactory
) -> PrivateBroker:
    source: Source = request.param
    return mosquitto_broker_factory(source=source)


def test_a_private_broker_carries_a_message(each_kind: PrivateBroker, connect: Connect) -> None:
    reader = connect(each_kind, "reader")
    reader.subscribe("news")
    assert connect(each_kind, "writer").publish("news", b"hello") == 0
    eventually(lambda: reader.received == [("news", b"hello")])


def test_a_private_broker_listens_on_loopback_only(each_kind: PrivateBroker) -> None:
    assert each_kind.host == "127.0.0.1"
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", each_kind.port))


def test_a_killed_broker_comes_back_on_its_port(each_kind: PrivateBroker, connect: Connect) -> None:
    port = each_kind.port
    each_kind.kill()
    assert not each_kind.running
    each_kind.start()
    assert (each_kind.port, each_kind.running) == (port, True)
    connect(each_kind, "afterwards")


def test_a_taken_port_is_named_in_the_error(each_kind: PrivateBroker) -> None:
    with (
        closing(PrivateBroker(source=each_kind.kind, port=each_kind.port)) as second,
        pytest.raises(PortInUse, match=f"Port {each_kind.port} on 127.0.0.1 is taken") as caught,
    ):
        second.start()
    assert (caught.value.host, caught.value.port) == (each_kind.host, each_kind.port)
    assert each_kind.running


def test_a_port_stolen_while_the_broker_was_down_is_named(each_kind: PrivateBroker) -> None:
    each_kind.stop()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind((each_kind.host, each_kind.port))
        thief.listen()
        with pytest.raises(PortInUse):
            each_kind.start()
    assert each_kind.start().running


def test_the_temporary_folder_goes_with_the_broker_and_a_given_one_stays(tmp_path: Path) -> None:
    with PrivateBroker(source="amqtt") as temporary:
        folder = temporary.folder
    with PrivateBroker(source="amqtt", folder=tmp_path / "kept"):
        pass
    assert not folder.exists()
    assert (tmp_path / "kept").is_dir()


def test_mosquitto_keeps_retained_messages_over_an_orderly_restart(
    mosquitto: PrivateBroker, connect: Connect
) -> None:
    connect(mosquitto, "writer").publish("kept", b"value", retain=True)
    mosquitto.restart()
    reader = connect(mosquitto, "reader")
    reader.subscribe("kept")
    eventually(lambda: reader.received == [("kept", b"value")])


def test_mosquitto_keeps_over_a_kill_what_it_had_saved_and_loses_the_rest(
    mosquitto_broker_factory: BrokerFactory, connect: Connect
) -> None:
    mosquitto = mosquitto_broker_factory(config_lines=("autosave_interval 1",))
    state = mosquitto.folder / "mosquitto.db"
    connect(mosquitto, "writer").publish("kept", b"saved-value", retain=True)
    eventually(lambda: state.exists() and b"saved-value" in state.read_bytes())
    saved = state.read_bytes()
    connect(mosquitto, "late").publish("lost", b"late-value", retain=True)
    mosquitto.kill()
    state.write_bytes(saved)  # as if the kill had come before the next autosave
    mosquitto.start()
    reader = connect(mosquitto, "reader")
    reader.subscribe("kept", "lost")
    eventually(lambda: ("kept", b"saved-value") in reader.received)
    assert reader.publish("end", b"") == 0
    assert reader.received == [("kept", b"saved-value")]


def test_the_embedded_broker_keeps_nothing_over_a_restart(
    amqtt: PrivateBroker, connect: Connect
) -> None:
    connect(amqtt, "writer").publish("lost", b"value", retain=True)
    amqtt.restart()
    reader = connect(amqtt, "reader")
    reader.subscribe("lost", "mark")
    connect(amqtt, "writer").publish("mark", b"end")
    eventually(lambda: ("mark", b"end") in reader.received)
    assert reader.received == [("mark", b"end")]


def test_the_embedded_broker_refuses_settings_that_it_cannot_obey(tmp_path: Path) -> None:
    tls = BrokerTls(tmp_path / "ca", tmp_path / "crt", tmp_path / "key")
    with pytest.raises(BrokerUnavailable, match="no TLS"):
        PrivateBroker(source="amqtt", tls=tls)


def test_a_machine_without_any_broker_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("demo.mosquitto_binary._BESIDE_PATH", ())
    monkeypatch.setattr("demo.broker_backends.broker_home", lambda: tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BrokerUnavailable, match="apt-get install mosquitto") as caught:
        PrivateBroker()
    assert len(caught.value.reasons) == 3


def test_without_mosquitto_the_embedded_broker_stands_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("demo.mosquitto_binary._BESIDE_PATH", ())
    monkeypatch.setattr("demo.broker_backends.broker_home", lambda: tmp_path)
    with PrivateBroker() as broker:
        assert (broker.kind, broker.mqtt_version) == ("amqtt", "3.1.1")


@pytest.mark.skipif(not can_unpack(), reason="unpacking needs Debian's apt-get and dpkg-deb")
def test_the_unpacked_package_serves_as_the_installed_one_does(
    mosquitto_broker_factory: BrokerFactory, connect: Connect
) -> None:
    unpacked = mosquitto_broker_factory(source="unpacked")
    assert (unpacked.kind, unpacked.mqtt_version) == ("mosquitto", "5")
    assert connect(unpacked, "writer").publish("news", b"hello") == 0
