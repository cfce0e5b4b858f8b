"""Keys come and go without anybody touching the vehicle, and what was revoked stays revoked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.errors import KeyStatementError, SignatureError
from common.messages import (
    MAX_PAYLOAD_BYTES,
    Acknowledgement,
    KeyChain,
    SignedStatement,
    decode,
    encode,
)
from common.revision import encode_revision
from common.signing import key_id
from common.trust import MAX_STATEMENTS, KeyStatement, TrustStore, follow, sign_statement
from edge_agent.mqtt.link import Received
from edge_agent.storage import kept
from tests.support_edge import (
    KEY,
    TRUST,
    VEHICLE,
    Rig,
    aged_bundle,
    revision_for,
    signed,
)

KEYS, PARAMETERS = f"twin/v1/{VEHICLE}/keys", f"twin/v1/{VEHICLE}/parameters"
SECOND, THIRD, ROOT = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (2, 3, 9))


def name(key: Ed25519PrivateKey) -> str:
    return key_id(key.public_key())


def statement(
    number: int,
    keys: tuple[Ed25519PrivateKey, ...],
    by: Ed25519PrivateKey,
    revoked: tuple[Ed25519PrivateKey, ...] = (),
) -> SignedStatement:
    made = KeyStatement(
        kind="key_statement",
        number=number,
        keys=[key.public_key().public_bytes_raw().hex() for key in keys],
        revoked=[name(key) for key in revoked],
    )
    return sign_statement(made, by)


ROTATED = statement(1, (KEY, SECOND), KEY)
REVOKED = statement(2, (SECOND,), SECOND, (KEY,))
ONWARD = statement(3, (SECOND, THIRD), SECOND, (KEY,))
ROOTED = TrustStore(TRUST.keys, {name(ROOT): ROOT.public_key()})


def believes(store: TrustStore, key: Ed25519PrivateKey) -> str:
    """Why the store does not believe what a key signs; empty when it does."""
    try:
        store.check(name(key), key.sign(b"content").hex(), b"content")
    except SignatureError as error:
        return error.reason
    return ""


# ---- what follows from a chain of statements ---------------------------------------------------


def test_a_chain_is_walked_from_one_to_the_next() -> None:
    store = follow(TRUST, [ROTATED, REVOKED, ONWARD])
    assert store.number == 3
    assert [believes(store, key) for key in (KEY, SECOND, THIRD)] == ["revoked_key", "", ""]
    assert follow(store, [ROTATED, REVOKED]) is store


def test_what_was_believed_before_can_still_be_read() -> None:
    store = follow(TRUST, [ROTATED, REVOKED])
    store.check_kept(name(KEY), KEY.sign(b"old").hex(), b"old")
    with pytest.raises(SignatureError):
        store.check_kept(name(THIRD), THIRD.sign(b"old").hex(), b"old")


BAD_CHAINS: dict[str, tuple[TrustStore, list[SignedStatement], str]] = {
    "by a stranger": (TRUST, [statement(1, (THIRD,), THIRD)], "untrusted_key"),
    "one left out": (follow(TRUST, [ROTATED]), [ONWARD], "not_next"),
    "by a key that was revoked": (
        follow(TRUST, [ROTATED, REVOKED]),
        [statement(3, (THIRD,), KEY)],
        "revoked_key",
    ),
    "that brings a revoked key back": (
        follow(TRUST, [ROTATED, REVOKED]),
        [statement(3, (SECOND, KEY), SECOND)],
        "revoked_key",
    ),
    "by a signing key where roots are set apart": (ROOTED, [ROTATED], "untrusted_key"),
    "under another's name": (
        TRUST,
        [
            SignedStatement(
                key_id=name(KEY),
                signature=REVOKED.signature,
                statement=statement(1, (THIRD,), THIRD).statement,
            )
        ],
        "bad_signature",
    ),
}


@pytest.mark.parametrize("case", BAD_CHAINS)
def test_a_statement_is_refused_for_its_reason(case: str) -> None:
    store, statements, reason = BAD_CHAINS[case]
    with pytest.raises(KeyStatementError) as refused:
        follow(store, statements)
    assert refused.value.reason == reason


def test_a_root_that_is_set_apart_takes_the_keys_from_whoever_stole_one() -> None:
    stolen = follow(ROOTED, [statement(1, (SECOND,), ROOT, (KEY,))])
    assert believes(stolen, KEY) == "revoked_key"
    assert believes(stolen, ROOT) == "untrusted_key"  # a root signs no revision


def test_a_vehicle_that_is_installed_after_a_rotation_passes_over_what_it_never_knew() -> None:
    late = TrustStore({name(SECOND): SECOND.public_key()})
    store = follow(late, [ROTATED, REVOKED, ONWARD])
    assert [believes(store, key) for key in (KEY, SECOND, THIRD)] == ["revoked_key", "", ""]


# ---- on the vehicle ------------------------------------------------------------------------------


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "state.db", aged_bundle(tmp_path / "bundle"))
    rig.connect()
    yield rig
    rig.state.close()


def tell_keys(rig: Rig, *statements: SignedStatement) -> None:
    rig.tell(Received(KEYS, encode(KeyChain(statements=list(statements)))))


def tell(rig: Rig, payload: bytes) -> None:
    rig.tell(Received(PARAMETERS, payload))


def test_after_a_rotation_the_new_key_signs_and_the_revoked_one_does_not(rig: Rig) -> None:
    tell(rig, signed(revision_for(rig.bundle), SECOND))
    assert rig.agent.twin.revision == 0
    tell_keys(rig, ROTATED)
    assert rig.agent.status().key_statement == 1
    tell(rig, signed(revision_for(rig.bundle), SECOND))
    assert rig.agent.twin.revision == 1
    tell_keys(rig, ROTATED, REVOKED)
    tell(rig, signed(revision_for(rig.bundle, number=2), KEY))
    assert rig.agent.twin.revision == 1
    newest = kept.refusals(rig.state.connection, 1)[0]
    assert newest.reason.startswith("revoked_key")


def test_what_was_revoked_stays_revoked_over_a_restart_and_another_bundle(
    rig: Rig, tmp_path: Path
) -> None:
    tell_keys(rig, ROTATED, REVOKED)
    rig.reopen()
    assert believes(rig.agent.identity.trusted, KEY) == "revoked_key"
    rig.bundle = aged_bundle(tmp_path / "other", error_threshold_v=0.04)
    rig.reopen()
    assert believes(rig.agent.identity.trusted, KEY) == "revoked_key"
    rig.connect()
    tell_keys(rig, ROTATED)  # the chain of before: nothing comes back
    assert rig.agent.status().key_statement == 2


def test_parameters_in_force_outlive_the_key_that_signed_them(rig: Rig) -> None:
    tell(rig, signed(revision_for(rig.bundle)))
    rig.drive()
    tell_keys(rig, ROTATED, REVOKED)
    rig.reopen()
    assert rig.agent.twin.revision == 1


def test_a_retained_revision_that_comes_again_under_the_new_key_is_no_news(rig: Rig) -> None:
    tell(rig, signed(revision_for(rig.bundle)))
    tell_keys(rig, ROTATED, REVOKED)
    before = rig.agent.status().refused_messages
    tell(rig, signed(revision_for(rig.bundle), SECOND))
    assert rig.agent.twin.revision == 1
    assert rig.agent.status().refused_messages == before


def test_a_vehicle_that_was_away_for_two_rotations_walks_them_all(rig: Rig) -> None:
    tell_keys(rig, ROTATED, REVOKED, ONWARD)
    tell(rig, signed(revision_for(rig.bundle), THIRD))
    assert rig.agent.twin.revision == 1


def test_a_chain_that_breaks_off_changes_nothing_and_is_counted(rig: Rig) -> None:
    tell_keys(rig, ROTATED, statement(2, (THIRD,), THIRD))
    assert rig.agent.status().key_statement == 0
    assert rig.agent.status().refused_messages == 1
    assert "untrusted_key" in kept.refusals(rig.state.connection, 1)[0].reason


def test_a_statement_is_no_revision_and_a_revision_no_statement(rig: Rig) -> None:
    """The same key signs both: neither may be taken for the other."""
    content = encode_revision(revision_for(rig.bundle))
    as_statement = SignedStatement(
        key_id=name(KEY), signature=KEY.sign(content).hex(), statement=content.decode()
    )
    tell_keys(rig, as_statement)
    assert rig.agent.status().key_statement == 0
    as_revision = ROTATED.statement.encode()
    tell(
        rig,
        b'{"schema":1,"key_id":"%s","signature":"%s","revision":%s}'
        % (name(KEY).encode(), ROTATED.signature.encode(), _quoted(as_revision)),
    )
    assert rig.agent.twin.revision == 0
    answers = [decode(p, Acknowledgement).reason for p in rig.link.payloads("ack")]
    assert answers in ([], ["malformed"])  # it has a number that can be named


def _quoted(content: bytes) -> bytes:
    return b'"' + content.replace(b'"', b'\\"') + b'"'


def longest_chain() -> list[SignedStatement]:
    """Each statement by a key that only the one before named, as long as any statement can be."""
    keys = [KEY, *(Ed25519PrivateKey.from_private_bytes(bytes([100 + n]) * 32) for n in range(56))]
    made = []
    for number in range(1, MAX_STATEMENTS + 1):
        content = KeyStatement(
            kind="key_statement",
            number=number,
            keys=[key.public_key().public_bytes_raw().hex() for key in keys[number : number + 8]],
            revoked=[name(key) for key in keys[:number]],
            why="x" * 256,
            issued_at=1_700_000_000.123,
        )
        made.append(sign_statement(content, keys[number - 1]))
    return made


def test_the_longest_chain_fits_into_a_message_and_is_remembered_whole(rig: Rig) -> None:
    chain = longest_chain()
    assert len(encode(KeyChain(statements=chain))) < MAX_PAYLOAD_BYTES
    for end in (MAX_STATEMENTS // 2, MAX_STATEMENTS):
        tell_keys(rig, *chain[:end])
    rig.reopen()
    assert rig.agent.status().key_statement == MAX_STATEMENTS
    assert believes(rig.agent.identity.trusted, KEY) == "revoked_key"
