"""Each row of the attack table in docs/threats.md: what is sent, and what the vehicle makes of it.

The names follow the Uptane standard (1.2, chapter 4) and TUF. After every attack the vehicle runs
what it ran before, and takes the next good revision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.freshness import Freshness, vouch
from common.messages import (
    MAX_PAYLOAD_BYTES,
    Acknowledgement,
    KeyChain,
    Receipt,
    Status,
    decode,
    encode,
)
from common.revision import Cause, encode_revision
from common.signing import key_id, sign
from edge_agent.mqtt.link import Received
from edge_agent.parameters import revision_records
from edge_agent.parameters.cloud_word import STALE_TRIPS
from edge_agent.parameters.decisions import FARTHEST_AHEAD
from edge_agent.storage import kept
from tests.support_edge import (
    FOREIGN_KEY,
    KEY,
    VEHICLE,
    Rig,
    aged_bundle,
    revision_for,
    signed,
)
from tests.test_edge_keys import REVOKED, ROTATED, SECOND

THREATS = Path(__file__).resolve().parent.parent / "docs" / "threats.md"
PARAMETERS, RECEIPT = f"twin/v1/{VEHICLE}/parameters", f"twin/v1/{VEHICLE}/receipt"
KEYS = f"twin/v1/{VEHICLE}/keys"
IN_FORCE = 4


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A vehicle that has confirmed revisions 2, 3 and 4, one trip each."""
    rig = Rig(tmp_path / "state.db", aged_bundle(tmp_path / "bundle"))
    rig.connect()
    for number in (2, 3, IN_FORCE):
        tell(rig, good(rig, number))
        rig.drive(f"trip-{number}", odometer=1000.0 * number)
    assert rig.agent.twin.revision == IN_FORCE
    yield rig
    rig.state.close()


def good(rig: Rig, number: int, **changes: object) -> bytes:
    """A revision that is a little other than the one before."""
    cause = Cause(kind="breach", message_id=f"{number:032d}")
    theta = [1.1 + number % 100 / 1e4, 0.0]
    return signed(
        revision_for(rig.bundle, **{"number": number, "theta": theta, "cause": cause} | changes)
    )


def tell(rig: Rig, payload: bytes) -> None:
    rig.tell(Received(PARAMETERS, payload))


def forged(rig: Rig) -> bytes:
    """What is not signed by anybody, under a trusted name."""
    message = sign(encode_revision(revision_for(rig.bundle, number=9)), FOREIGN_KEY)
    return encode(msgspec.structs.replace(message, key_id=key_id(KEY.public_key())))


@dataclass(frozen=True)
class Attack:
    """What is put on the vehicle's topic, the reason, and whether somebody is told of it."""

    payload: Callable[[Rig], bytes]
    reason: str
    answered: bool = True


ATTACKS = {
    "arbitrary parameters": Attack(
        lambda rig: signed(revision_for(rig.bundle, number=9), FOREIGN_KEY), "untrusted_key", False
    ),
    "arbitrary parameters under a trusted name": Attack(forged, "bad_signature", False),
    "roll-back": Attack(lambda rig: good(rig, 1), "older"),
    "replay": Attack(lambda rig: good(rig, 3), "replayed"),
    "fast-forward": Attack(lambda rig: good(rig, IN_FORCE + FARTHEST_AHEAD + 1), "number_too_far"),
    "two of one number": Attack(lambda rig: good(rig, IN_FORCE, theta=[1.2, 0.0]), "conflicting"),
    "wrong recipient": Attack(lambda rig: good(rig, 9, vehicle_id="car-2"), "wrong_vehicle"),
    "mix-and-match": Attack(lambda rig: good(rig, 9, bundle="ab" * 32), "wrong_bundle"),
    "out of range": Attack(lambda rig: good(rig, 9, theta=[9.0, 0.0]), "out_of_bounds"),
    "worse than before": Attack(lambda rig: good(rig, 9, theta=[0.9, 0.0]), "worse_on_trace"),
    "endless data": Attack(lambda _: b" " * (MAX_PAYLOAD_BYTES + 1), "too_large", False),
    "another format": Attack(lambda rig: good(rig, 9, schema=2), "unknown_schema"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_for_its_reason_and_the_vehicle_drives_on(rig: Rig, name: str) -> None:
    attack = ATTACKS[name]
    if attack.reason == "worse_on_trace":
        rig.drive("breach", gain=1.2, odometer=5000.0)  # a trace to compare on
    before = len(rig.link.payloads("ack"))
    refused = rig.agent.status().refused_messages
    tell(rig, attack.payload(rig))
    assert rig.agent.twin.revision == IN_FORCE
    assert rig.agent.status().refused_messages == refused + 1
    assert kept.refusals(rig.state.connection, 1)[0].reason.startswith(attack.reason)
    answers = [decode(p, Acknowledgement).reason for p in rig.link.payloads("ack")[before:]]
    assert answers == ([attack.reason] if attack.answered else [])
    rig.reopen()
    rig.connect()
    assert rig.agent.twin.revision == IN_FORCE
    tell(rig, good(rig, 10, theta=[1.11, 0.0]))
    assert rig.agent.twin.revision == 10


@pytest.mark.parametrize(
    "payload",
    [b"", b"[" * 100_000, b'{"schema":1,"revision":' + b"[" * 60_000, b"\xff" * 1000, b"null"],
    ids=["nothing", "deep", "deep in a field", "no text", "null"],
)
@pytest.mark.parametrize("topic", [PARAMETERS, RECEIPT, KEYS])
def test_what_is_no_message_is_counted_and_stops_nothing(
    rig: Rig, topic: str, payload: bytes
) -> None:
    refused = rig.agent.status().refused_messages
    rig.tell(Received(topic, payload))
    assert rig.agent.status().refused_messages == refused + 1
    assert rig.agent.twin.revision == IN_FORCE


def test_a_flood_of_bad_messages_leaves_bounded_traces(rig: Rig) -> None:
    for number in range(kept.KEPT_REFUSALS + 50):
        tell(rig, b"flood %d" % number)
    size = rig.state.connection.execute("SELECT COUNT(*) FROM refused").fetchone()[0]
    assert 0 < size <= kept.KEPT_REFUSALS
    assert rig.agent.status().refused_messages == kept.KEPT_REFUSALS + 50


def test_a_stolen_key_is_of_no_use_once_it_is_revoked(rig: Rig) -> None:
    rig.tell(Received(KEYS, encode(KeyChain(statements=[ROTATED, REVOKED]))))
    tell(rig, good(rig, 9))
    assert kept.refusals(rig.state.connection, 1)[0].reason.startswith("revoked_key")
    assert rig.agent.twin.revision == IN_FORCE
    tell(rig, signed(revision_for(rig.bundle, number=9), SECOND))
    assert rig.agent.twin.revision == 9


def test_a_revision_of_before_is_no_longer_taken_when_the_vehicle_has_lost_its_records(
    rig: Rig,
) -> None:
    """What was confirmed last is the lowest number that is ever taken again for this bundle."""
    with rig.state.transaction() as db:
        for slot in (*revision_records.CONFIRMED, revision_records.JUDGED):
            kept.forget_parameters(db, slot)
    rig.reopen()
    rig.connect()
    assert rig.agent.twin.revision == 0
    tell(rig, good(rig, 3))
    assert rig.agent.twin.revision == 0
    tell(rig, good(rig, IN_FORCE))
    assert rig.agent.twin.revision == IN_FORCE


def test_another_bundle_in_between_lets_no_older_revision_in(rig: Rig, tmp_path: Path) -> None:
    first = rig.bundle
    rig.bundle = aged_bundle(tmp_path / "other", error_threshold_v=0.04)
    rig.reopen()
    rig.bundle = first
    rig.reopen()
    rig.connect()
    tell(rig, good(rig, 2))
    assert rig.agent.twin.revision in {0, IN_FORCE}
    tell(rig, good(rig, IN_FORCE))
    assert rig.agent.twin.revision == IN_FORCE


# ---- freeze --------------------------------------------------------------------------------------


def asked(rig: Rig) -> str:
    """The last question that a status asked."""
    questions = [decode(p, Status).question for p in rig.link.payloads("status")]
    return next(question for question in reversed(questions) if question)


def answer(
    rig: Rig,
    nonce: str,
    revision: int = IN_FORCE,
    vehicle_id: str = VEHICLE,
    key: Ed25519PrivateKey = KEY,
) -> None:
    word = Freshness(
        kind="freshness",
        vehicle_id=vehicle_id,
        nonce=nonce,
        revision=revision,
        key_statement=0,
    )
    fresh = vouch(word, key)
    rig.tell(Received(RECEIPT, encode(Receipt(vehicle_id=VEHICLE, fresh=fresh))))


def trips_since_word(rig: Rig) -> int:
    return rig.agent.status().trips_since_word


def test_a_freeze_shows_as_trips_without_a_fresh_word(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    assert trips_since_word(rig) == 3
    answer(rig, asked(rig))
    assert trips_since_word(rig) == 0
    with rig.state.transaction() as db:
        kept.write_anchor(db, "trips-since-word", str(STALE_TRIPS - 1).encode())
    rig.drive("one-more", odometer=9000.0)
    rig.reopen()
    assert trips_since_word(rig) == STALE_TRIPS
    assert "cloud_word_stale" in caplog.text


def test_what_the_cloud_names_twice_and_never_comes_is_held_back(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """Receipts pass, the newer revision does not."""
    for held_back in (0, 1):
        rig.connect()
        answer(rig, asked(rig), revision=IN_FORCE + 1)
        assert kept.counters(rig.state.connection).get("held_back", 0) == held_back
    assert "held_back" in caplog.text
    tell(rig, good(rig, IN_FORCE + 1))
    rig.connect()
    answer(rig, asked(rig), revision=IN_FORCE + 1)
    assert kept.counters(rig.state.connection)["held_back"] == 1


def test_an_old_answer_a_forged_one_and_anothers_are_no_fresh_word(rig: Rig) -> None:
    first = asked(rig)
    rig.connect()
    assert asked(rig) != first
    for nonce, key, vehicle_id, reason in (
        (first, KEY, VEHICLE, "expired"),
        (asked(rig), FOREIGN_KEY, VEHICLE, "untrusted_key"),
        (asked(rig), KEY, "car-2", "wrong_vehicle"),
    ):
        answer(rig, nonce, vehicle_id=vehicle_id, key=key)
        assert f"({reason})" in kept.refusals(rig.state.connection, 1)[0].reason
        assert trips_since_word(rig) == 3


def test_a_new_connection_asks_anew_and_a_status_in_between_does_not(rig: Rig) -> None:
    first = asked(rig)
    rig.drive("another", odometer=9000.0)
    assert asked(rig) == first
    rig.connect()
    assert asked(rig) != first


# ---- the table -----------------------------------------------------------------------------------


def test_every_row_of_the_table_names_a_test_that_exists() -> None:
    named = re.findall(r"`(test_[a-z_]+)`", THREATS.read_text(encoding="utf-8"))
    tests = "".join(
        path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")
    )
    assert len(named) > 10
    for name in named:
        assert f"def {name}" in tests or (Path(__file__).parent / f"{name}.py").exists(), name
