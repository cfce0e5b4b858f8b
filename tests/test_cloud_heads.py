"""Signed heads: a history that its owner rewrites with the real key is found all the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError

from cloud.audit import head_files, heads, merkle, verification
from cloud.audit.head_keeper import HeadKeeper
from cloud.audit.heads import Signed
from cloud.audit.verification import Outcome
from cloud.audit.walk import NO_HEADS, Checkpoint, Heads
from cloud.calibration.revising import Author
from cloud.errors import HeadsError, HeadsExportError
from cloud.location import PostgresUrl
from cloud.store import heads as kept
from cloud.store.database import Reader
from common.revision import decode_revision, encode_revision, revision_hash
from common.signing import key_id, sign
from tests.cloud_doubles import Insides, write_bundle
from tests.support_chains import tamper


@pytest.fixture(scope="module")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def inside(tmp_path: Path, bundle_path: Path, database: PostgresUrl | None) -> Iterator[Insides]:
    """Vehicle `a` with 3 revisions, `b` with 2; on either database."""
    made = filled(Insides(tmp_path, bundle_path, database))
    yield made
    made.store.close()


@pytest.fixture
def on_file(tmp_path: Path, bundle_path: Path) -> Insides:
    """The same on SQLite alone, for what no database decides."""
    return filled(Insides(tmp_path, bundle_path))


def filled(made: Insides) -> Insides:
    drive(made, "a", 1, 3)
    drive(made, "b", 1, 2)
    return made


def drive(inside: Insides, vehicle: str, first: int, last: int) -> None:
    for trip in range(first, last + 1):
        inside.take(inside.car(vehicle).breach(trip, revision=trip - 1))
        inside.work()


def keeper(inside: Insides, sink: head_files.Sink | None = None) -> HeadKeeper:
    return HeadKeeper(inside.store, Author(inside.key, "0.1.0"), lambda: inside.now, sink)


def verified(inside: Insides, known: Heads, **how: object) -> Outcome:
    public = inside.key.public_key()
    opener = partial(Reader, inside.store.location)
    return verification.verify(opener, {key_id(public): public}, known, **how)  # type: ignore[arg-type]


def own_heads(inside: Insides) -> Heads:
    public = inside.key.public_key()
    with inside.store.read() as db:
        signed = kept.newest(db)
        assert signed is not None
        return heads.newest(signed, kept.current(db), {key_id(public): public})


def exported(inside: Insides, folder: Path) -> Heads:
    public = inside.key.public_key()
    return heads.fold(head_files.read_all(str(folder)), {key_id(public): public}).heads


def rewritten(inside: Insides, vehicle: str, number: int) -> list[TextClause]:
    """From `number` on another history, as who holds database and key would write it."""
    statements, parent = [], None
    for row in inside.rows(vehicle):
        if row.number < number:
            continue
        revision = decode_revision(row.content)
        revision = msgspec.structs.replace(revision, theta=[1.5, 0.1])
        if parent is not None:
            revision = msgspec.structs.replace(revision, parent_hash=parent)
        content = encode_revision(revision)
        parent = revision_hash(content)
        signed = sign(content, inside.key)
        statements.append(
            text(
                f"UPDATE revision SET content=:content, hash='{parent}', "
                f"signature='{signed.signature}', parent_hash='{revision.parent_hash}' "
                f"WHERE id={row.id}"
            ).bindparams(content=content)
        )
    return statements


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_history_rewritten_with_the_real_key_is_found_by_heads_alone(
    inside: Insides, tmp_path: Path, number: int
) -> None:
    folder = tmp_path / "heads"
    hands = keeper(inside, head_files.sink_to(str(folder)))
    hands.make()
    hands.export()
    tamper(inside.store.location, *rewritten(inside, "a", number))
    assert not verified(inside, NO_HEADS, every_signature=True).broken
    [broken] = verified(inside, exported(inside, folder)).broken
    assert (broken.vehicle_id, broken.number) == ("a", 3)
    assert "signed statement" in str(broken)


def test_earlier_statements_tell_where_the_rewriting_began(inside: Insides, tmp_path: Path) -> None:
    folder = tmp_path / "heads"
    hands = keeper(inside, head_files.sink_to(str(folder)))
    hands.make()
    drive(inside, "a", 4, 6)
    hands.make()
    assert hands.export() == 2
    tamper(inside.store.location, *rewritten(inside, "a", 2))
    [broken] = verified(inside, exported(inside, folder)).broken
    assert (broken.vehicle_id, broken.number) == ("a", 3)


EDITED_COLUMNS = {
    "parent_hash": "'x'",
    "kind": "'replacement'",
    "odometer": "1.0",
    "bundle": "'x'",
    "cause_message_id": "'x'",
    "created_at": "1.0",
    "hash": "'x'",
    "inputs": ":nothing",
}


def test_every_column_that_a_content_answers_for_is_compared(inside: Insides) -> None:
    where = "WHERE vehicle_id = 'a' AND number = 2"
    row = inside.rows("a")[1]
    for column, other in EDITED_COLUMNS.items():
        edit = f"UPDATE revision SET {column} = {other} {where}"
        values = {"nothing": b""} if column == "inputs" else {}
        tamper(inside.store.location, text(edit).bindparams(**values))
        found = verified(inside, NO_HEADS).broken
        assert [(one.vehicle_id, one.number) for one in found] == [("a", 2)], column
        back = text(f"UPDATE revision SET {column} = :value {where}")
        tamper(inside.store.location, back.bindparams(value=getattr(row, column)))
    assert not verified(inside, NO_HEADS).broken


CUTS = {
    "the last revision": ("DELETE FROM revision WHERE vehicle_id='a' AND number=3", 3),
    "all of a vehicle": ("DELETE FROM revision WHERE vehicle_id='a'", 1),
}


@pytest.mark.parametrize("name", CUTS)
def test_what_was_cut_off_is_found_also_without_its_breach(inside: Insides, name: str) -> None:
    keeper(inside).make()
    known = own_heads(inside)
    statement, number = CUTS[name]
    tamper(inside.store.location, statement, "DELETE FROM breach WHERE vehicle_id='a'")
    [broken] = verified(inside, known).broken
    assert (broken.vehicle_id, broken.number) == ("a", number)


def test_what_a_head_covers_needs_no_signature_and_what_follows_does(inside: Insides) -> None:
    """What the fast walk does not look at is what the statement's signature stands for."""
    keeper(inside).make()
    drive(inside, "a", 4, 4)
    known = own_heads(inside)
    tamper(inside.store.location, "UPDATE revision SET signature='' WHERE number=2")
    assert not verified(inside, known).broken
    found = verified(inside, known, every_signature=True).broken
    assert [(one.vehicle_id, one.number) for one in found] == [("a", 2), ("b", 2)]
    tamper(inside.store.location, "UPDATE revision SET signature='' WHERE number=4")
    assert [(one.vehicle_id, one.number) for one in verified(inside, known).broken] == [("a", 4)]


def test_several_processes_find_what_one_finds(
    inside: Insides, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification, "AT_ONCE", 1)
    told: list[tuple[int, int]] = []
    tamper(inside.store.location, "UPDATE revision SET signature='' WHERE vehicle_id='b'")
    alone = verified(inside, NO_HEADS)
    together = verified(
        inside, NO_HEADS, processes=2, progress=lambda done, total: told.append((done, total))
    )
    assert told[-1] == (5, 5)
    assert [one.vehicle_id for one in together.broken] == ["b"]
    assert str(together.broken) == str(alone.broken)
    assert together.holding == alone.holding


@pytest.mark.parametrize(
    ("revisions", "covered", "processes"),
    [(0, 0, 1), (20_000, 0, 1), (100_000, 0, 4), (100_000, 100_000, 1), (1_000_000, 10**6, 7),
     (10**7, 0, 8), (5, 9, 1)],
)  # fmt: skip
def test_a_small_database_is_walked_by_one_process(
    monkeypatch: pytest.MonkeyPatch, revisions: int, covered: int, processes: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert verification.worthwhile(revisions, covered) == processes


def test_a_chain_that_does_not_hold_gets_no_head(inside: Insides) -> None:
    tamper(inside.store.location, "UPDATE revision SET signature='' WHERE vehicle_id='b'")
    made = keeper(inside).make()
    assert [one.vehicle_id for one in made.broken] == ["b"]
    assert set(own_heads(inside).newest) == {"a"}


def test_a_key_that_the_database_remembers_is_not_the_services_own(inside: Insides) -> None:
    """Whoever can write the database could add a key; its revisions get no head."""
    stranger = Ed25519PrivateKey.from_private_bytes(b"f" * 32)
    row = inside.rows("a")[-1]
    signed = sign(row.content, stranger)
    tamper(
        inside.store.location,
        f"INSERT INTO signing_key VALUES ('{signed.key_id}', "
        f"'{stranger.public_key().public_bytes_raw().hex()}')",
        f"UPDATE revision SET key_id='{signed.key_id}', signature='{signed.signature}' "
        f"WHERE id={row.id}",
    )
    assert [one.vehicle_id for one in keeper(inside).make().broken] == ["a"]


def test_nothing_new_makes_no_statement_and_each_names_the_one_before(inside: Insides) -> None:
    hands = keeper(inside)
    assert hands.make().number == 1
    assert hands.make().number is None
    drive(inside, "b", 3, 3)
    assert hands.make().number == 2
    with inside.store.read() as db:
        first, second = (signed for _, signed in kept.all_statements(db))
    assert heads.read(second).parent_hash == first.hash
    assert second.lines.splitlines() == [f"b 3 {inside.rows('b')[2].hash}"]
    assert heads.read(second).vehicles == 2


def test_of_two_that_state_the_heads_at_once_one_does(inside: Insides) -> None:
    """The other one comes between what the first has read and what it writes."""
    other = keeper(inside)
    author = Author(inside.key, "0.1.0")

    def interrupted() -> float:
        assert other.make().number == 1
        return inside.now

    assert HeadKeeper(inside.store, author, interrupted).make().number is None
    with inside.store.read() as db:
        assert len(kept.all_statements(db)) == 1
    assert not verified(inside, own_heads(inside)).broken


def statements(inside: Insides) -> list[Signed]:
    hands = keeper(inside)
    for trip in (4, 5, 6):
        hands.make()
        drive(inside, "a", trip, trip)
    hands.make()
    with inside.store.read() as db:
        return [signed for _, signed in kept.all_statements(db)]


def changed(signed: Signed, **fields: object) -> Signed:
    return msgspec.structs.replace(signed, **fields)


FORGERIES: dict[str, Callable[[list[Signed]], Sequence[Signed]]] = {
    "the last one gone, its signature put on the one before": lambda s: [
        *s[:-2],
        changed(s[-2], signature=s[-1].signature),
    ],
    "one in the middle gone": lambda s: [*s[:1], *s[2:]],
    "the first gone": lambda s: s[1:],
    "two in the other order": lambda s: [s[1], s[0], *s[2:]],
    "a line changed": lambda s: [changed(s[0], lines=s[0].lines.replace("a 3", "a 2")), *s[1:]],
    "a line gone": lambda s: [changed(s[0], lines=s[0].lines.splitlines()[0] + "\n"), *s[1:]],
    "a line that is none": lambda s: [changed(s[0], lines="a\n"), *s[1:]],
    "another statement": lambda s: [
        *s[:-1],
        changed(s[-1], statement=s[-1].statement.replace('"vehicles":2', '"vehicles":3')),
    ],
    "garbage": lambda s: [*s[:-1], changed(s[-1], statement="{")],
    "by a key that nobody trusts": lambda s: [*s[:-1], changed(s[-1], key_id="0" * 16)],
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_row_of_statements_with_any_edit_is_not_believed(on_file: Insides, name: str) -> None:
    public = on_file.key.public_key()
    made = statements(on_file)
    assert heads.fold(made, {key_id(public): public}).last is not None
    with pytest.raises(HeadsError):
        heads.fold(FORGERIES[name](made), {key_id(public): public})


def test_the_kept_heads_must_have_the_root_that_was_signed(inside: Insides) -> None:
    keeper(inside).make()
    tamper(inside.store.location, "UPDATE chain_head SET number = 2 WHERE vehicle_id = 'a'")
    with pytest.raises(HeadsError, match="root"):
        own_heads(inside)
    with pytest.raises(HeadsError, match="root"):
        keeper(inside).make()


def test_a_statement_is_never_written_over(on_file: Insides, tmp_path: Path) -> None:
    sink = head_files.sink_to(str(tmp_path / "heads"))
    first, second, *_ = statements(on_file)
    sink(1, first)
    sink(1, first)
    with pytest.raises(HeadsExportError, match="another statement"):
        sink(1, second)
    assert head_files.read_all(str(tmp_path / "heads")) == [first]


def test_what_a_sink_refuses_is_exported_with_the_next_one(on_file: Insides) -> None:
    taken: list[int] = []
    refusing = [True]

    def sink(number: int, _signed: Signed) -> None:
        if refusing[0]:
            raise HeadsExportError("nowhere", "it is full")
        taken.append(number)

    hands = keeper(on_file, sink)
    hands.guarded_turn()
    assert taken == []
    refusing[0] = False
    drive(on_file, "a", 4, 4)
    hands.guarded_turn()
    hands.guarded_turn()
    assert taken == [1, 2]


def test_the_database_itself_refuses_to_change_a_statement(inside: Insides) -> None:
    keeper(inside).make()
    for edit in ("UPDATE head_statement SET made_at = 0", "DELETE FROM head_statement"):
        with pytest.raises(IntegrityError, match="append-only"), inside.store.write() as db:
            db.connection().execute(text(edit))


def naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    both = naive_root(leaves[:k]) + naive_root(leaves[k:])
    return hashlib.sha256(b"\1" + both).digest()


@given(st.lists(st.binary(max_size=4), max_size=40))
def test_the_root_is_the_one_of_the_standard(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == naive_root(leaves).hex()


@given(
    st.dictionaries(
        st.text("abcXYZ019_-", min_size=1, max_size=64),
        st.builds(Checkpoint, st.integers(1, 10**9), st.just("0f" * 32)),
    )
)
def test_lines_come_back_as_they_were(known: dict[str, Checkpoint]) -> None:
    assert heads.heads_in(heads.lines_of(known), 1) == known
