"""The Merkle tree hash of a list of leaves, as certificate logs have it.

B. Laurie, A. Langley, E. Kasper, "Certificate Transparency", RFC 6962, section 2.1: leaves and
nodes are hashed with different first bytes, so that no node can pass for a leaf. Pure. Must never
sort.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

EMPTY = hashlib.sha256(b"").digest()


def root(leaves: Iterable[bytes]) -> str:
    """SHA-256 tree hash, hex; that of no leaves is the hash of nothing.

    Complete subtrees to the left: `stack` holds one hash for each binary digit of the count.
    """
    stack: list[bytes] = []
    for count, leaf in enumerate(leaves):
        node = hashlib.sha256(b"\0" + leaf).digest()
        while count & 1:
            node = _node(stack.pop(), node)
            count >>= 1  # noqa: PLW2901
        stack.append(node)
    if not stack:
        return EMPTY.hex()
    node = stack.pop()
    while stack:
        node = _node(stack.pop(), node)
    return node.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
