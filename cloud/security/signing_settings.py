"""What the configuration says of the key that signs: `[keys]`, in exactly one of three places.

Must never hold a PIN.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from common.settings_file import File

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Pkcs11(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A PKCS#11 token, by its vendor's library. The PIN: `pin_file`, or TWIN_PKCS11_PIN."""

    module: File
    token: Text
    key: Text
    pin_file: File | None = None


class Kms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key of AWS KMS, by id, ARN or `alias/…`; its spec has to be ECC_NIST_EDWARDS25519."""

    key: Text
    region: Text | None = None


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The private key that signs revisions: a file, or a token, or KMS."""

    private: File | None = None
    pkcs11: Pkcs11 | None = None
    kms: Kms | None = None


def problem_of_keys(keys: Keys) -> str | None:
    """What must not be, in a sentence; None: nothing."""
    named = [place for place in (keys.private, keys.pkcs11, keys.kms) if place is not None]
    if len(named) != 1:
        return "[keys] needs exactly one of private, [keys.pkcs11] and [keys.kms]"
    return None
