"""A release: the numbered, signed word that one vehicle shall run a bundle, and what follows of it.

The announcement lists every chunk's SHA-256, so that each chunk is checked alone before it is kept.
Must never let a file name from outside become a path: a bundle has two files, and their names are
fixed.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

import msgspec

from common.bundle import MANIFEST_FILE, MODEL_FILE
from common.errors import BundleError, MalformedMessageError
from common.json_document import decode_document
from common.messages import (
    MAX_PAYLOAD_BYTES,
    Count,
    Digest,
    Identifier,
    MessageId,
    UnixTime,
    encode,
)
from common.signing import Signer, sign
from common.trust import TrustStore

RELEASE_SCHEMA: Final = 1
CHUNK_BYTES: Final = 64 * 1024  # as base64 in JSON 88 kB: below AWS IoT Core's 128 KiB
CHUNKS_AT_ONCE: Final = 8
RELEASE_TEXT: Final = 256

FileName = Literal["manifest.json", "voltage_model.tflite"]
FILES: Final[tuple[FileName, ...]] = (MANIFEST_FILE, MODEL_FILE)
"""In the order in which they are fetched: the manifest alone may tell that it does not fit."""
ReleaseNumber = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
ReleaseReason = Literal[
    "",
    "malformed",
    "unknown_schema",
    "untrusted_key",
    "revoked_key",
    "bad_signature",
    "wrong_vehicle",
    "not_newer",
    "too_large",
    "no_space",
    "chunk_mismatch",
    "incompatible",
    "self_test_failed",
    "crash_loop",
    "damaged",
]
ReleaseState = Literal["fetching", "staged", "trial", "installed", "refused", "rolled_back"]


class AnnouncedFile(msgspec.Struct, frozen=True):
    """One file of the bundle, and the SHA-256 of each of its chunks in order."""

    name: FileName
    size: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    sha256: Digest
    chunks: Annotated[list[Digest], msgspec.Meta(min_length=1)]


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed. `release` rises with each announcement to a vehicle, also of an older bundle.

    `kind` keeps it from ever passing for something else that the same key signs.
    """

    schema: int = RELEASE_SCHEMA
    kind: Literal["bundle_release"]
    vehicle_id: Identifier
    release: ReleaseNumber
    bundle: Digest
    chunk_bytes: Annotated[int, msgspec.Meta(ge=1, le=CHUNK_BYTES)]
    files: Annotated[list[AnnouncedFile], msgspec.Meta(min_length=2, max_length=2)]
    reason: Annotated[str, msgspec.Meta(max_length=RELEASE_TEXT)] = ""
    announced_at: UnixTime

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def file(self, name: str) -> AnnouncedFile:
        """The file of that name; an announcement that was decoded has each of FILES."""
        return next(file for file in self.files if file.name == name)


class SignedAnnouncement(msgspec.Struct, frozen=True, kw_only=True):
    """cloud -> vehicle, retained. `announcement` holds the exact bytes that were signed."""

    schema: int = RELEASE_SCHEMA
    key_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    signature: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{128}\Z")]
    announcement: Annotated[str, msgspec.Meta(max_length=MAX_PAYLOAD_BYTES)]


class Fetch(msgspec.Struct, frozen=True, kw_only=True):
    """vehicle -> cloud: send these chunks of an announced file. `missing` is how many in all."""

    schema: int = RELEASE_SCHEMA
    vehicle_id: Identifier
    release: ReleaseNumber
    bundle: Digest
    file: FileName
    chunks: Annotated[list[Count], msgspec.Meta(min_length=1, max_length=CHUNKS_AT_ONCE)]
    missing: Count


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """cloud -> vehicle: one chunk, base64; not signed, its SHA-256 stands in the announcement."""

    schema: int = RELEASE_SCHEMA
    vehicle_id: Identifier
    release: ReleaseNumber
    file: FileName
    index: Count
    data: bytes


class BundleAck(msgspec.Struct, frozen=True, kw_only=True):
    """vehicle -> cloud: how far a release has come, or why it did not.

    *fetching*: believed, being fetched. *staged*: complete and self-tested, waits for the end of
    the trip. *trial*: swapped in. *installed*: a trip was reported with it. *refused*, or
    *rolled_back* after the swap: the bundle of before runs.
    """

    schema: int = RELEASE_SCHEMA
    message_id: MessageId
    vehicle_id: Identifier
    release: ReleaseNumber
    bundle: Digest
    announcement_hash: Digest
    state: ReleaseState
    reason: ReleaseReason = ""
    detail: Annotated[str, msgspec.Meta(max_length=512)] = ""
    decided_at: UnixTime


def announced_file(name: FileName, content: bytes, chunk_bytes: int = CHUNK_BYTES) -> AnnouncedFile:
    """A file with the digests of its chunks."""
    starts = range(0, len(content), chunk_bytes)
    chunks = [digest(content[start : start + chunk_bytes]) for start in starts]
    return AnnouncedFile(name, len(content), digest(content), chunks)


def digest(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def sign_announcement(announcement: Announcement, key: Signer) -> SignedAnnouncement:
    """Wrap an announcement's bytes with the key's signature.

    Raises BundleError when the list of chunks is longer than one message may be.
    """
    made = sign(msgspec.json.encode(announcement), key)
    signed = SignedAnnouncement(
        key_id=made.key_id, signature=made.signature, announcement=made.revision
    )
    if len(encode(signed)) > MAX_PAYLOAD_BYTES:
        problem = f"its {announcement.size} bytes need a longer list of chunks than a message holds"
        raise BundleError(announcement.bundle[:12], problem, "Train a smaller network.")
    return signed


def verify_announcement(signed: SignedAnnouncement, trusted: TrustStore) -> bytes:
    """The signed bytes. Raises SignatureError: no key that may sign now made the signature."""
    content = signed.announcement.encode()
    trusted.check(signed.key_id, signed.signature, content)
    return content


def decode_announcement(content: bytes) -> Announcement:
    """Parse signed bytes. Raises UnknownSchemaError, MalformedMessageError."""
    found = decode_document(content, Announcement, RELEASE_SCHEMA)
    if {file.name for file in found.files} != set(FILES):
        raise MalformedMessageError("Announcement", "it does not list each file once")
    for file in found.files:
        if len(file.chunks) != -(-file.size // found.chunk_bytes):
            raise MalformedMessageError("Announcement", f"chunks and size of {file.name} differ")
    if found.file(MANIFEST_FILE).sha256 != found.bundle:
        raise MalformedMessageError("Announcement", "its manifest is not the bundle's")
    return found
