"""The signing key in a file, in a PKCS#11 token and in KMS: one suite; what fails, says so."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from cloud.errors import SecretError, SignerUnavailableError, UnsignableError
from cloud.security.secret_files import read_secret, warn_of_readable
from cloud.security.signers import KMS_LARGEST, PIN_VARIABLE, TokenSigner, load_signer
from cloud.security.signing_settings import Keys, Pkcs11, problem_of_keys
from common.messages import SignedStatement
from common.signing import Signer, create_key_pair, key_id, sign, verify
from common.trust import KeyStatement, TrustStore, follow, sign_statement
from tests.cloud_doubles import Insides, write_bundle
from tests.support_signers import PIN, kms, token


@pytest.fixture(params=["file", "token", "kms"])
def keys(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Keys]:
    if request.param == "file":
        create_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
        yield Keys(private="private.pem")
    elif request.param == "token":
        yield token(tmp_path / "hsm", monkeypatch)
    else:
        with kms(monkeypatch) as (found, _):
            yield found


def test_what_it_signs_is_believed_by_whoever_trusts_its_key(keys: Keys, tmp_path: Path) -> None:
    signer = load_signer(keys, tmp_path)
    trusted = {key_id(signer.public_key()): signer.public_key()}
    for content in (b"{}", "grüße".encode(), b"x" * KMS_LARGEST):
        assert verify(sign(content, signer), trusted) == content


def test_every_kind_of_signed_thing_takes_any_signer(keys: Keys, tmp_path: Path) -> None:
    signer: Signer = load_signer(keys, tmp_path)
    own = signer.public_key()
    statement = KeyStatement(kind="key_statement", number=1, keys=[own.public_bytes_raw().hex()])
    signed: SignedStatement = sign_statement(statement, signer)
    assert follow(TrustStore({key_id(own): own}), [signed]).number == 1


def inside_with(signer: Signer, folder: Path) -> Insides:
    return Insides(folder, write_bundle(folder / "bundle"), signer=signer)


def test_a_service_makes_its_revisions_with_it(keys: Keys, tmp_path: Path) -> None:
    inside = Insides(
        tmp_path, write_bundle(tmp_path / "bundle"), signer=load_signer(keys, tmp_path)
    )
    inside.take(inside.car().breach(1))
    inside.work()
    (row,) = inside.rows()
    assert row.key_id == key_id(inside.key.public_key())
    inside.store.close()


def test_a_key_that_is_away_costs_no_breach_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kms(monkeypatch) as (keys, server):
        inside = Insides(
            tmp_path, write_bundle(tmp_path / "bundle"), signer=load_signer(keys, tmp_path)
        )
        inside.take(inside.car().breach(1))
        for trouble in ("is_down", "lies"):
            setattr(server, trouble, True)
            with pytest.raises(SignerUnavailableError, match="alias/twin"):
                inside.work()
            assert not inside.rows()
            assert set(inside.breach_states().values()) == {"pending"}
            setattr(server, trouble, False)
            inside.worker.wake()
        inside.work()
        assert len(inside.rows()) == 1
        inside.store.close()


def test_kms_says_what_it_cannot_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kms(monkeypatch) as (keys, _):
        signer = load_signer(keys, tmp_path)
        with pytest.raises(UnsignableError, match="4097"):
            signer.sign(b"x" * (KMS_LARGEST + 1))
        assert keys.kms is not None
        unknown = msgspec.structs.replace(keys.kms, key="alias/other")
        with pytest.raises(SignerUnavailableError, match="no alias/other"):
            load_signer(Keys(kms=unknown), tmp_path)


def test_a_token_is_opened_with_its_pin_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keys = token(tmp_path / "hsm", monkeypatch)
    assert keys.pkcs11 is not None
    (tmp_path / "wrong").write_text("0000\n")
    wrong = msgspec.structs.replace(keys.pkcs11, pin_file="wrong")
    with pytest.raises(SignerUnavailableError, match="twin"):
        load_signer(Keys(pkcs11=wrong), tmp_path)
    absent = msgspec.structs.replace(keys.pkcs11, key="other")
    with pytest.raises(SignerUnavailableError, match="other"):
        load_signer(Keys(pkcs11=absent), tmp_path)
    from_environment = msgspec.structs.replace(keys.pkcs11, pin_file=None)
    with pytest.raises(SecretError, match=PIN_VARIABLE):
        load_signer(Keys(pkcs11=from_environment), tmp_path)
    monkeypatch.setenv(PIN_VARIABLE, PIN)
    signer = load_signer(Keys(pkcs11=from_environment), tmp_path)
    assert isinstance(signer, TokenSigner)
    signer._session.close()  # as when the token was away for a moment
    assert len(signer.sign(b"x")) == 64
    signer._session.close()
    assert PIN not in caplog.text


def test_exactly_one_key_is_named() -> None:
    assert problem_of_keys(Keys()) is not None
    assert problem_of_keys(Keys("a.pem", Pkcs11("x.so", "t", "k"))) is not None
    assert problem_of_keys(Keys("a.pem")) is None


@pytest.mark.parametrize(("mode", "told"), [(0o600, 0), (0o640, 0), (0o644, 1), (0o660, 1)])
def test_a_secret_that_others_may_read_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, told: int
) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\nmore\n")
    file.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert read_secret(file, "TWIN_X", {}) == "s3cret"
    assert len([line for line in caplog.messages if "secret_file_is_readable" in line]) == told
    assert "s3cret" not in caplog.text
    assert len(warn_of_readable([file, tmp_path / "absent"])) == told


def test_a_secret_that_is_not_there_is_named_by_its_place_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for file in (tmp_path / "absent", tmp_path / "empty", None):
        with pytest.raises(SecretError, match=file.name if file else "TWIN_X"):
            read_secret(file, "TWIN_X", {})
    assert read_secret(None, "TWIN_X", {"TWIN_X": "y"}) == "y"
