"""What a target is, and what it raises when a promise is broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

Plain = Callable[[bytes], bytes]
"""A mutation that knows nothing of the format: the fuzzer's own."""
Mutate = Callable[[bytes, Random, Plain], bytes]


class BrokenPromiseError(AssertionError):
    """The input was taken, and something that must hold does not."""


class UnsignedAcceptanceError(BrokenPromiseError):
    """A revision was accepted whose signature does not verify over its very bytes."""


@dataclass(frozen=True)
class Target:
    """`check(data)` returns, or raises what nobody documented."""

    name: str
    seeds: tuple[bytes, ...]
    mutate: Mutate
    check: Callable[[bytes], None]


def promise(holds: object, broken: str) -> None:
    """Raise BrokenPromiseError unless it holds."""
    if not holds:
        raise BrokenPromiseError(broken)
