"""`twin-cloud keys`: statements are made, chained and published to those who know less."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.errors import KeyOrderError
from cloud.security.key_orders import Keys, keys_now, require_may_sign, statement_of
from cloud.store import key_statements
from common.freshness import believed
from common.messages import KeyChain, decode
from common.signing import create_key_pair, key_id
from common.trust import MAX_STATEMENTS, TrustStore, follow
from tests.cloud_doubles import Insides, write_bundle
from tests.support_command_line import twin_cloud

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path) -> Iterator[Insides]:
    made = Insides(tmp_path, bundle_path)
    (tmp_path / "first.pem").write_bytes(_pem(made))
    yield made
    made.store.close()


def _pem(inside: Insides) -> bytes:
    from cryptography.hazmat.primitives import serialization

    assert isinstance(inside.key, Ed25519PrivateKey)
    return inside.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        database = tmp_path / "twin.db"
        return twin_cloud(monkeypatch, capsys, *arguments, "--database", database)

    return call


@pytest.fixture
def second(tmp_path: Path) -> str:
    """The id of another key pair."""
    return create_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")


def rotate(run: Run, folder: Path, signed_by: str = "first.pem") -> tuple[int, str, str]:
    return run("keys", "rotate", "--new", folder / "public.pem", "--signed-by", folder / signed_by)


def sent_chain(inside: Insides) -> KeyChain:
    return decode(inside.publisher.of_kind("keys")[-1].payload, KeyChain)


def test_a_vehicle_believes_what_rotate_and_revoke_say(
    inside: Insides, run: Run, second: str, tmp_path: Path
) -> None:
    first = next(iter(keys(inside)))
    assert rotate(run, tmp_path)[:2] == (0, "statement 1\n")
    code, out, _ = run("keys", "revoke", first, "--signed-by", tmp_path / "private.pem")
    assert (code, out) == (0, "statement 2\n")
    with inside.store.read() as db:
        statements = key_statements.statements(db)
    installed = TrustStore({first: inside.key.public_key()})
    store = follow(installed, statements)
    assert (store.number, list(store.keys), set(store.revoked)) == (2, [second], {first})
    _, listed, _ = run("keys", "list", "--json")
    assert [(row["key_id"], row["may_sign"]) for row in json.loads(listed)] == [
        (second, True),
        (first, False),
    ]


def keys(inside: Insides) -> dict[str, str]:
    from cloud.commands.key_reports import _now

    with inside.store.read() as db:
        return dict(_now(db).may_sign)


@pytest.mark.usefixtures("second")
def test_statements_go_to_every_vehicle_when_they_are_new_and_to_who_knows_less(
    inside: Insides, run: Run, tmp_path: Path
) -> None:
    inside.take(inside.car("a").status(), inside.car("b").status())
    inside.work()
    assert inside.publisher.of_kind("keys") == []
    rotate(run, tmp_path)
    inside.worker.wake()
    inside.work()
    topics = [(sent.topic, sent.retain) for sent in inside.publisher.of_kind("keys")]
    assert topics == [("twin/v1/a/keys", True), ("twin/v1/b/keys", True)]
    inside.publisher.sent.clear()
    inside.take(inside.car("a").status(key_statement=1), inside.car("c").status())
    inside.worker.wake()
    inside.work()
    assert [sent.topic for sent in inside.publisher.of_kind("keys")] == ["twin/v1/c/keys"]
    assert len(sent_chain(inside).statements) == 1


def test_a_key_that_may_sign_nothing_stops_the_service_before_it_starts(
    inside: Insides, run: Run, second: str, tmp_path: Path
) -> None:
    first = next(iter(keys(inside)))
    rotate(run, tmp_path)
    run("keys", "revoke", first, "--signed-by", tmp_path / "private.pem")
    with inside.store.read() as db:
        now = keys_now(key_statements.statements(db), {})
    require_may_sign(now, second)
    with pytest.raises(KeyOrderError, match="was revoked"):
        require_may_sign(now, first)
    with pytest.raises(KeyOrderError, match="is not named"):
        require_may_sign(now, "ab" * 8)


def test_what_cannot_be_stated_is_refused_and_says_why(
    inside: Insides, run: Run, second: str, tmp_path: Path
) -> None:
    first = next(iter(keys(inside)))
    signed_by = ("--signed-by", tmp_path / "first.pem")
    code, _, err = run("keys", "revoke", first, *signed_by)
    assert (code, "the last one" in err) == (4, True)
    code, _, err = run("keys", "revoke", "ab" * 8, *signed_by)
    assert (code, "none of those" in err) == (4, True)
    rotate(run, tmp_path)
    code, _, err = rotate(run, tmp_path)
    assert (code, "may sign already" in err) == (4, True)
    run("keys", "revoke", second, *signed_by)
    code, _, err = rotate(run, tmp_path)
    assert (code, "for ever" in err) == (4, True)


def test_a_question_in_a_status_is_answered_with_what_is_newest_and_signed(
    inside: Insides,
) -> None:
    car, nonce = inside.car("a"), "ab" * 16
    inside.take(car.status())
    assert inside.publisher.of_kind("receipt") == []  # nothing was asked
    inside.take(car.breach(5))
    inside.work()
    inside.take(car.status(question=nonce))
    fresh = inside.publisher.of_kind("receipt")[-1].receipt.fresh
    assert fresh is not None
    public = inside.key.public_key()
    trusted = TrustStore({key_id(public): public})
    found = believed(fresh, trusted, "a", nonce)
    assert (found.revision, found.key_statement) == (1, 0)


def test_no_more_statements_are_made_than_a_vehicle_keeps(inside: Insides) -> None:
    named = {key_id(inside.key.public_key()): inside.key.public_key().public_bytes_raw().hex()}
    statement_of(Keys(MAX_STATEMENTS, named), inside.key, "", 0.0)
    with pytest.raises(KeyOrderError, match="as many as a vehicle keeps"):
        statement_of(Keys(MAX_STATEMENTS + 1, named), inside.key, "", 0.0)
