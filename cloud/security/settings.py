"""What the configuration says of who may come in: `[api]`, its limits, and `[oidc]`.

Must never hold a secret: files do, or the environment.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec

from cloud.security.actors import Role
from common.settings_file import Host

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much one caller may ask, in each process. `burst` is how much at once."""

    key_per_s: Annotated[float, msgspec.Meta(gt=0)] = 100.0
    key_burst: Annotated[int, msgspec.Meta(ge=1)] = 500
    address_per_s: Annotated[float, msgspec.Meta(gt=0)] = 200.0
    address_burst: Annotated[int, msgspec.Meta(ge=1)] = 1000
    failures_per_minute: Annotated[int, msgspec.Meta(ge=1)] = 30
    body_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 8 * 1024 * 1024
    answer_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0


class Api(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the operator API listens, and whom it answers. Port 0 lets the system choose one.

    `auth = "none"` makes everybody an admin; it is taken on a loopback `host` alone.
    """

    host: Host = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    auth: Literal["required", "none"] = "required"
    metrics: Literal["viewer", "open"] = "viewer"
    cors_origins: list[Text] = []
    limits: Limits = Limits()


class Oidc(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An OIDC issuer whose access tokens are believed.

    A claim is named by its path: `realm_access.roles`. `roles` maps values of `roles_claim` to
    roles; the highest counts, without any the caller is refused. Without a `cohorts_claim` a
    caller sees every cohort; with one, those that it names (`*`: every one).
    """

    issuer: Annotated[str, msgspec.Meta(pattern=r"^https?://\S+\Z", max_length=512)]
    audience: Text
    roles_claim: Text = "roles"
    roles: dict[str, Role]
    cohorts_claim: Text | None = None
    name_claim: Text = "sub"
    algorithms: Annotated[list[Algorithm], msgspec.Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["RS256", "ES256"]
    )


def problem_of(api: Api, oidc: Oidc | None) -> str | None:
    """What must not be, in a sentence; None: nothing."""
    if api.auth == "none" and not is_loopback(api.host):
        return f'[api] auth = "none" is for a loopback host, and {api.host} is none'
    if oidc is not None and oidc.issuer.startswith("http://"):
        host = oidc.issuer.removeprefix("http://").split("/")[0]
        if not is_loopback(host.rsplit(":", 1)[0].strip("[]")):
            return f"[oidc] issuer {oidc.issuer} must be https: whoever is between could forge keys"
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
