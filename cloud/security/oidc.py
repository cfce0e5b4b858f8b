"""Access tokens of one OIDC issuer: found by discovery, its keys kept a while, its claims mapped.

PyJWT fetches and keeps the issuer's keys (five minutes; an unknown key id asks again, at most every
30 s, so that made-up ids are no way to make this service knock at the issuer). Only algorithms with
a public key are believed, and only that of the key itself. Must never follow an address that a
token names, nor log a token.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

import jwt
from jwt.exceptions import PyJWKClientConnectionError, PyJWKClientError, PyJWKSetError

from cloud.errors import IssuerUnavailableError, NotAuthenticatedError
from cloud.security.actors import ROLES, Actor, Role
from cloud.security.settings import Oidc

LONGEST_TOKEN: Final = 16 * 1024
LEEWAY_S: Final = 30
TIMEOUT_S: Final = 5.0
_LARGEST_DOCUMENT: Final = 1024 * 1024
_LONGEST_NAME: Final = 48
_REQUIRED: Final = ["exp", "iss", "aud", "sub"]


class TokenDoor:
    """The issuer is asked when the first token comes: a service starts without it. Thread-safe."""

    def __init__(self, settings: Oidc, *, cooldown_s: float = 30.0) -> None:
        self._settings, self._cooldown_s = settings, cooldown_s
        self._lock = threading.Lock()
        self._keys: jwt.PyJWKClient | None = None

    def open(self, token: str) -> tuple[Actor, float]:
        """Who it is, and until when. Raises NotAuthenticatedError, IssuerUnavailableError."""
        if len(token) > LONGEST_TOKEN:
            raise NotAuthenticatedError(f"a token has at most {LONGEST_TOKEN} characters")
        claims = self._claims(token)
        return actor_of(claims, self._settings), float(claims["exp"]) + LEEWAY_S

    def _claims(self, token: str) -> Mapping[str, Any]:
        settings = self._settings
        try:
            header = jwt.get_unverified_header(token)
            # Before anything is fetched: `none` and HMAC are not among them, whatever a key says.
            if header.get("alg") not in settings.algorithms or not header.get("kid"):
                raise NotAuthenticatedError("it names no key, or no algorithm of [oidc]")
            return jwt.decode(
                token,
                self._key(header["kid"]),
                algorithms=list(settings.algorithms),
                audience=settings.audience,
                issuer=settings.issuer,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except jwt.InvalidTokenError as error:
            raise NotAuthenticatedError(f"the token is not valid: {error}") from error

    def _key(self, kid: str) -> jwt.PyJWK:
        try:
            return self._client().get_signing_key(kid)
        except PyJWKClientConnectionError as error:
            raise IssuerUnavailableError(self._settings.issuer, error) from error
        except PyJWKClientError as error:
            raise NotAuthenticatedError("the issuer has no such key") from error
        except (PyJWKSetError, ValueError) as error:
            raise IssuerUnavailableError(self._settings.issuer, error) from error

    def _client(self) -> jwt.PyJWKClient:
        with self._lock:
            if self._keys is None:
                uri = _discovered(self._settings.issuer)
                self._keys = jwt.PyJWKClient(
                    uri, timeout=TIMEOUT_S, cooldown_duration=self._cooldown_s
                )
            return self._keys


def actor_of(claims: Mapping[str, Any], settings: Oidc) -> Actor:
    """Whom these claims name, and what it may. Raises NotAuthenticatedError: nothing."""
    values = _texts(_at(claims, settings.roles_claim))
    roles: set[Role] = {settings.roles[value] for value in values if value in settings.roles}
    if not roles:
        raise NotAuthenticatedError(f"its {settings.roles_claim} names no role of [oidc.roles]")
    name = _texts(_at(claims, settings.name_claim)) or [str(claims["sub"])]
    shown = "".join(c for c in name[0] if c.isprintable())[:_LONGEST_NAME]
    return Actor(f"oidc {shown}", max(roles, key=ROLES.index), _cohorts(claims, settings))


def _cohorts(claims: Mapping[str, Any], settings: Oidc) -> frozenset[str] | None:
    if settings.cohorts_claim is None:
        return None
    named = _texts(_at(claims, settings.cohorts_claim))
    return None if "*" in named else frozenset(named)


def _at(claims: Mapping[str, Any], path: str) -> object:
    """The claim of that very name (a URL has dots, too), else what its path leads to."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def _discovered(issuer: str) -> str:
    """Where the issuer's keys are (OpenID Connect Discovery 1.0). Raises IssuerUnavailableError."""
    address = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - http(s): checked with the configuration
            document = json.loads(answer.read(_LARGEST_DOCUMENT))
        found, uri = document["issuer"], str(document["jwks_uri"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IssuerUnavailableError(issuer, error) from error
    if found != issuer:
        raise IssuerUnavailableError(issuer, f"it calls itself {found}")
    if not uri.startswith("https://") and not issuer.startswith("http://"):
        raise IssuerUnavailableError(issuer, "its keys are not to be had by https")
    return uri
