"""The chain of revisions shows any edit, and a signature is believed from a trusted key alone."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ChainError, ContractError, KeyFileError, SignatureError
from common.messages import SignedRevision, decode, encode
from common.revision import (
    GENESIS,
    Cause,
    Revision,
    decode_revision,
    encode_revision,
    revision_hash,
    verify_chain,
)
from common.signing import (
    create_key_pair,
    key_id,
    load_private_key,
    load_public_key,
    sign,
    verify,
)
from tests.support_edge import FOREIGN_KEY, KEY, TRUSTED

Links = list[tuple[bytes, str]]


def revision(number: int, parent: str, vehicle_id: str = "car-1", gain: float = 1.0) -> Revision:
    return Revision(
        vehicle_id=vehicle_id,
        number=number,
        parent_hash=parent,
        base=number - 1,
        bundle="a" * 64,
        odometer=float(number),
        theta=[gain],
        rate=[0.0],
        covariance=[1.0, 0.0, 1.0],
        cause=Cause(
            kind="breach",
            message_id="b" * 32,
            trip_id=f"t{number}",
            points=50,
            nis=1.0,
            error_before_v=0.2,
            error_after_v=0.1,
        ),
        created_at=1.0,
        code_version="1",
    )


def chain(length: int, vehicle_id: str = "car-1") -> Links:
    links: Links = []
    parent = GENESIS
    for number in range(1, length + 1):
        content = encode_revision(revision(number, parent, vehicle_id))
        parent = revision_hash(content)
        links.append((content, parent))
    return links


def break_of(links: Links) -> ChainError:
    with pytest.raises(ChainError) as caught:
        verify_chain("car-1", links)
    assert caught.value.vehicle_id == "car-1"
    assert f"vehicle car-1 breaks at revision {caught.value.number}" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("length", [0, 1, 5])
def test_an_untouched_chain_verifies_to_its_head(length: int) -> None:
    links = chain(length)
    assert verify_chain("car-1", links) == (length, links[-1][1] if links else GENESIS)


@given(st.integers(1, 5), st.data())
def test_any_changed_byte_of_a_content_is_found_where_it_is(
    length: int, data: st.DataObject
) -> None:
    links = chain(length)
    at = data.draw(st.integers(0, length - 1))
    content = bytearray(links[at][0])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    links[at] = bytes(content), links[at][1]
    assert break_of(links).number == at + 1


@given(st.integers(1, 5), st.data(), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_any_changed_hash_is_found_where_it_is(length: int, data: st.DataObject, to: str) -> None:
    links = chain(length)
    at = data.draw(st.integers(0, length - 1))
    links[at] = links[at][0], to
    assert break_of(links).number == at + 1


@given(st.integers(2, 6), st.data())
def test_an_edit_that_brings_its_own_hash_breaks_the_link_after_it(
    length: int, data: st.DataObject
) -> None:
    links = chain(length)
    at = data.draw(st.integers(0, length - 2))
    forged = msgspec.structs.replace(decode_revision(links[at][0]), theta=[1.5])
    content = encode_revision(forged)
    links[at] = content, revision_hash(content)
    assert break_of(links).number == at + 2


@given(st.permutations(range(5)))
def test_any_other_order_is_found_at_the_first_that_moved(order: list[int]) -> None:
    links = chain(5)
    if order != sorted(order):
        first = next(i for i, number in enumerate(order) if i != number)
        assert break_of([links[number] for number in order]).number == first + 1


@given(st.integers(2, 6), st.data())
def test_a_revision_that_was_cut_out_or_doubled_is_found(length: int, data: st.DataObject) -> None:
    links = chain(length)
    at = data.draw(st.integers(0, length - 2))
    assert break_of(links[:at] + links[at + 1 :]).number == at + 1
    assert break_of([*links[: at + 1], *links[at:]]).number == at + 2


def test_another_vehicles_revision_is_found() -> None:
    error = break_of([chain(1, "car-2")[0]])
    assert (error.number, error.problem) == (1, "it is car-2's 1")


def test_content_that_is_no_revision_is_found_even_with_its_own_hash() -> None:
    error = break_of([*chain(1), (b"nonsense", revision_hash(b"nonsense"))])
    assert error.number == 2
    assert "cannot be read" in error.problem


@pytest.mark.parametrize(
    "changes",
    [{"rate": [0.0, 0.0]}, {"covariance": [1.0, 0.0]}, {"covariance": []}, {"schema": 2}],
)
def test_a_revision_whose_lengths_do_not_fit_is_refused(changes: dict[str, object]) -> None:
    made = msgspec.structs.replace(revision(1, GENESIS), **changes)
    with pytest.raises(ContractError):
        decode_revision(encode_revision(made))


def test_a_signed_revision_survives_the_wire_and_verifies_to_the_signed_bytes() -> None:
    content = encode_revision(revision(1, GENESIS))
    on_the_wire = decode(encode(sign(content, KEY)), SignedRevision)
    assert verify(on_the_wire, TRUSTED) == content


@given(st.data())
def test_any_edit_of_the_content_or_the_signature_is_found(data: st.DataObject) -> None:
    good = sign(encode_revision(revision(1, GENESIS)), KEY)
    name = data.draw(st.sampled_from(["revision", "signature"]))
    text = getattr(good, name)
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from("0123456789abcdef").filter(lambda c: c != text[at]))
    forged = msgspec.structs.replace(good, **{name: text[:at] + letter + text[at + 1 :]})
    with pytest.raises(SignatureError, match="not made by key"):
        verify(forged, TRUSTED)


def test_a_key_that_is_not_trusted_is_named() -> None:
    message = sign(b"{}", FOREIGN_KEY)
    with pytest.raises(SignatureError, match=f"key {message.key_id} is not among"):
        verify(message, TRUSTED)


def test_a_foreign_signature_under_a_trusted_name_is_found() -> None:
    message = msgspec.structs.replace(sign(b"{}", FOREIGN_KEY), key_id=key_id(KEY.public_key()))
    with pytest.raises(SignatureError, match="not made by key"):
        verify(message, TRUSTED)


def test_a_new_pair_signs_and_verifies_and_the_private_file_is_its_owners(tmp_path: Path) -> None:
    private, public = tmp_path / "new" / "private.pem", tmp_path / "new" / "public.pem"
    name = create_key_pair(private, public)
    message = sign(b"{}", load_private_key(private))
    assert verify(message, {name: load_public_key(public)}) == b"{}"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert message.key_id == name


@pytest.mark.parametrize("taken", ["private.pem", "public.pem"])
def test_a_key_file_is_never_overwritten_and_no_half_pair_is_left(
    tmp_path: Path, taken: str
) -> None:
    (tmp_path / taken).write_bytes(b"precious")
    with pytest.raises(KeyFileError, match="not overwritten") as caught:
        create_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    assert caught.value.path == tmp_path / taken
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [(taken, b"precious")]


def test_a_folder_that_cannot_hold_keys_is_a_key_file_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot be written"):
        create_key_pair(tmp_path / "file" / "private.pem", tmp_path / "file" / "public.pem")


def pem(key: object, password: bytes | None = None) -> bytes:
    assert isinstance(key, Ed25519PrivateKey | ec.EllipticCurvePrivateKey)
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read"),
        (b"", "no readable"),
        (b"\xff\x00 garbage", "no readable"),
        (pem(KEY)[:60], "no readable"),
        (pem(KEY, b"secret"), "no readable"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "another kind"),
    ],
    ids=["missing", "empty", "garbage", "torn", "encrypted", "other kind"],
)
def test_a_private_key_file_that_is_none_says_so(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "key.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyFileError, match=problem):
        load_private_key(path)


def test_a_public_key_file_of_another_kind_says_so(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(KeyFileError, match="another kind"):
        load_public_key(path)
    path.write_bytes(pem(KEY))
    with pytest.raises(KeyFileError, match="no readable public key"):
        load_public_key(path)


def test_a_public_key_file_may_be_written_in_any_way_that_pem_allows(tmp_path: Path) -> None:
    path, plain = tmp_path / "key.pem", public_pem(KEY)
    for written in (
        plain.replace(b"\n", b"\r\n"),
        b"the fleet's key, 2026\n" + plain,
        plain.replace(b"KEY-----\n", b"KEY-----\n\n", 1),
    ):
        path.write_bytes(written)
        assert load_public_key(path).public_bytes_raw() == KEY.public_key().public_bytes_raw()


def public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
