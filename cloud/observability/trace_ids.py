"""The ids of a breach's trace: pure functions of its message id, so that nobody has to carry them.

Every process names the same trace and the same spans, and what comes twice is one span. Must never
depend on a clock, a process or a random number.
"""

from __future__ import annotations

import hashlib


def trace_id(message_id: str) -> str:
    """32 hex digits: the first 16 bytes of SHA-256 over the breach's message id."""
    return hashlib.sha256(message_id.encode()).hexdigest()[:32]


def span_id(message_id: str, name: str) -> str:
    """16 hex digits for the span `name` of that trace."""
    return hashlib.sha256(f"{message_id}|{name}".encode()).hexdigest()[:16]
