"""Access tokens of an OIDC issuer: whom they let in as what, and every known way to forge one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloud.api.access import Context
from cloud.api.gate import Entrance
from cloud.config import load_config
from cloud.errors import ConfigError, IssuerUnavailableError, NotAuthenticatedError
from cloud.security.actors import Actor
from cloud.security.doors import Doors, KeyDoor
from cloud.security.oidc import LONGEST_TOKEN, TokenDoor, actor_of
from cloud.security.settings import Oidc
from tests.cloud_doubles import Insides, problem, serving, write_bundle
from tests.support_issuer import AUDIENCE, RSA_KEY, Issuer, issuing

OIDC = '[oidc]\nissuer = "https://x.example"\naudience = "x"\n'
# By name, so that each is a test of its own.
FORGERIES = (
    "unsigned",
    "unsigned, in capitals",
    "hmac with the public key",
    "hmac with nothing",
    "another key under a known id",
    "an RSA signature for an EC key",
    "an unknown key",
    "no key named",
    "a key of its own inside",
    "claims changed",
    "an algorithm that is not configured",
    "signature cut off",
    "nothing of the kind",
    "endless",
)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def settings(issuer: Issuer) -> Oidc:
    return Oidc(
        issuer=issuer.url,
        audience=AUDIENCE,
        roles_claim="realm_access.roles",
        roles={"fleet-viewer": "viewer", "fleet-admin": "admin"},
        name_claim="email",
    )


@pytest.fixture
def door(settings: Oidc) -> TokenDoor:
    return TokenDoor(settings, cooldown_s=0.0)


@pytest.mark.parametrize("kid", ["rsa", "ec"])
def test_a_token_lets_in_whom_it_names_as_what_it_says(
    issuer: Issuer, door: TokenDoor, kid: str
) -> None:
    roles = {"roles": ["fleet-viewer", "fleet-admin"]}
    token = issuer.token(kid, realm_access=roles, email="ann@example.com")
    actor, until = door.open(token)
    assert actor == Actor("oidc ann@example.com", "admin", None)
    assert 200 < until - time.time() < 400


def test_cohorts_are_those_that_the_claim_names(settings: Oidc, issuer: Issuer) -> None:
    scoped = msgspec.structs.replace(settings, cohorts_claim="cohorts")

    def cohorts(claim: object) -> object:
        return actor_of(issuer.claims(cohorts=claim), scoped).cohorts

    assert cohorts(["north", "south", 7]) == {"north", "south"}
    assert cohorts("north") == {"north"}
    assert cohorts(["*"]) is None
    assert cohorts(None) == frozenset()  # what was asked for and is not there opens nothing


def test_a_claim_of_that_very_name_comes_before_its_path(settings: Oidc, issuer: Issuer) -> None:
    by_url = msgspec.structs.replace(settings, roles_claim="https://example.com/roles")
    claims = issuer.claims(**{"https://example.com/roles": "fleet-admin"})
    assert actor_of(claims, by_url).role == "admin"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"aud": "another-service"}, "[Aa]udience"),
        ({"aud": None}, "aud"),
        ({"iss": "https://evil.example"}, "[Ii]ssuer"),
        ({"exp": 1_700_000_000}, "expired"),
        ({"exp": None}, "exp"),
        ({"nbf": 9_000_000_000}, "not yet valid"),
        ({"sub": None}, "sub"),
        ({"realm_access": {"roles": ["something-else"]}}, "no role"),
        ({"realm_access": {"roles": {"fleet-admin": True}}}, "no role"),
        ({"realm_access": "fleet-admin"}, "no role"),
    ],
)
def test_a_token_that_is_not_right_lets_nobody_in(
    issuer: Issuer, door: TokenDoor, changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(NotAuthenticatedError, match=told):
        door.open(issuer.token(**changed))


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def forgeries(issuer: Issuer) -> dict[str, str]:
    """Each with the claims of a good token."""
    claims, good = issuer.claims(), issuer.token()
    pem = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def by_hmac(kid: str, secret: bytes) -> str:
        content = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{encoded(claims)}"
        mac = hmac.new(secret, content.encode(), hashlib.sha256).digest()
        return f"{content}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    return {
        "unsigned": f"{encoded({'alg': 'none', 'kid': 'rsa'})}.{encoded(claims)}.",
        "unsigned, in capitals": f"{encoded({'alg': 'NONE', 'kid': 'rsa'})}.{encoded(claims)}.",
        "hmac with the public key": by_hmac("rsa", pem),
        "hmac with nothing": by_hmac("rsa", b""),
        "another key under a known id": jwt.encode(claims, other, "RS256", headers={"kid": "rsa"}),
        "an RSA signature for an EC key": jwt.encode(
            claims, RSA_KEY, "RS256", headers={"kid": "ec"}
        ),
        "an unknown key": jwt.encode(claims, other, "RS256", headers={"kid": "no-such"}),
        "no key named": jwt.encode(claims, RSA_KEY, "RS256"),
        "a key of its own inside": jwt.encode(
            claims,
            other,
            "RS256",
            headers={"kid": "mine", "jku": f"{issuer.url}/keys", "jwk": {"kty": "RSA"}},
        ),
        "claims changed": ".".join(
            [
                good.split(".")[0],
                encoded(claims | {"realm_access": {"roles": ["fleet-admin"]}}),
                good.split(".")[2],
            ]
        ),
        "an algorithm that is not configured": jwt.encode(
            claims, RSA_KEY, "RS512", headers={"kid": "rsa"}
        ),
        "signature cut off": good.rsplit(".", 1)[0] + ".",
        "nothing of the kind": "a.b.c",
        "endless": "x" * (LONGEST_TOKEN + 1),
    }


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_token_lets_nobody_in(issuer: Issuer, door: TokenDoor, forgery: str) -> None:
    made = forgeries(issuer)
    assert made.keys() == set(FORGERIES)
    with pytest.raises(NotAuthenticatedError):
        door.open(made[forgery])
    assert set(issuer.asked) <= {"/.well-known/openid-configuration", "/keys"}


def test_the_issuers_keys_are_kept_and_may_change(issuer: Issuer, door: TokenDoor) -> None:
    for _ in range(5):
        door.open(issuer.token())
    assert issuer.asked == {"/.well-known/openid-configuration": 1, "/keys": 1}
    issuer.add_key("next")
    door.open(issuer.token("next"))
    assert issuer.asked["/keys"] == 2
    del issuer.keys["ec"]
    issuer.is_down = True
    door.open(issuer.token("next"))  # what is known serves on without it


def test_made_up_key_ids_do_not_make_the_service_knock(issuer: Issuer, settings: Oidc) -> None:
    door = TokenDoor(settings)
    door.open(issuer.token())
    for number in range(20):
        token = jwt.encode(issuer.claims(), RSA_KEY, "RS256", headers={"kid": str(number)})
        with pytest.raises(NotAuthenticatedError, match="no such key"):
            door.open(token)
    assert issuer.asked["/keys"] == 1


def test_an_issuer_that_is_away_or_another_one_is_said_to_be(
    issuer: Issuer, settings: Oidc
) -> None:
    issuer.is_down = True
    door = TokenDoor(settings, cooldown_s=0.0)
    with pytest.raises(IssuerUnavailableError, match="503"):
        door.open(issuer.token())
    issuer.is_down, issuer.calls_itself = False, "https://evil.example"
    with pytest.raises(IssuerUnavailableError, match="calls itself"):
        door.open(issuer.token())
    issuer.calls_itself = issuer.url
    door.open(issuer.token())


def test_the_api_takes_tokens_beside_keys(
    issuer: Issuer, settings: Oidc, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inside = Insides(tmp_path, write_bundle(tmp_path / "bundle"))
    doors = Doors(KeyDoor(inside.store, time.time), TokenDoor(settings), time.time)
    context = Context(inside.store, inside.catalogue, time.time, {}, entrance=Entrance(doors))
    good, bad = issuer.token(), issuer.token(aud="another-service")
    with serving(context) as client:
        shown = {"Authorization": f"Bearer {good}"}
        assert client.get("/api/v1/vehicles", headers=shown).status_code == 200
        problem(client.get("/api/v1/api-keys", headers=shown), 403)
        problem(client.get("/api/v1/vehicles", headers={"Authorization": f"Bearer {bad}"}), 401)
        issuer.is_down = True
        fresh = {"Authorization": f"Bearer {issuer.token(exp=int(time.time()) + 900)}"}
        assert client.get("/api/v1/vehicles", headers=fresh).status_code == 200
    assert "another-service" not in caplog.text
    for token in (good, bad):
        assert token not in caplog.text
        assert token.split(".")[2] not in caplog.text
    inside.store.close()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('[oidc]\nissuer = "http://login.example.com"\naudience = "x"\nroles = {}\n', "https"),
        ('[oidc]\nissuer = "ftp://login.example.com"\naudience = "x"\nroles = {}\n', "issuer"),
        (f'{OIDC}roles = {{a = "root"}}\n', "roles"),
        (f'{OIDC}roles = {{}}\nalgorithms = ["HS256"]\n', "algorithms"),
        ('[api]\nhost = "0.0.0.0"\nauth = "none"\n', "loopback"),
        ('[api]\nauth = "basic"\n', "auth"),
    ],
)
def test_a_configuration_that_would_let_strangers_in_is_refused(
    tmp_path: Path, more: str, told: str
) -> None:
    path = tmp_path / "twin-cloud.toml"
    path.write_text(f'[store]\npath = "x"\n[bundles]\npaths = ["b"]\n[keys]\nprivate = "k"\n{more}')
    with pytest.raises(ConfigError, match=told):
        load_config(path)
