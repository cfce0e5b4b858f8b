"""Mutations that know a format: JSON that stays JSON, and bytes where nothing is known.

Pure: the same generator gives the same mutation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final

from bench.edge.fuzz.target import Plain, Target

NUMBERS: Final[tuple[Any, ...]] = (
    *(0, 1, -1, 2, 32, 33, 512, 513, 10**9, 10**9 + 1, 2**31, 2**53, 2**63, 2**64, 10**400),
    *(0.0, -0.0, 0.5, 5e-324, 1e-30, 1e-9, 1e3, 1e9, 1e15, 1e30, -1e30, 1.0001e30, 1.7e308),
    *(-1.7e308, float("nan"), float("inf"), float("-inf"), 32503680000.0, -5e-324),
)
STRINGS: Final = (
    *("", " ", "-", "car-1", "a" * 64, "a" * 65, "\n", "\x00", "é", "\ud800", "\u202e", "NaN"),
    *("0" * 16, "0" * 32, "f" * 64, "g" * 64, "0" * 128, "twin/v1/+/trip", "#", "1e999"),
    *("breach", "fleet_prior", "replacement", "applied", "refused"),
)
DEPTH: Final = 2000


def bytes_of(data: bytes, random: Random) -> bytes:
    """Flip, insert, drop or double a piece: the plain mutation where no fuzzer offers one."""
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(out) + 1)
        match random.randrange(5):
            case 0 if out:
                out[at % len(out)] ^= 1 << random.randrange(8)
            case 1:
                out[at:at] = random.randbytes(random.randint(1, 8))
            case 2:
                del out[at : at + random.randint(1, 16)]
            case 3:
                out[at:at] = out[at : at + random.randint(1, 32)]
            case _ if out:
                out[at % len(out)] = random.randrange(256)
    return bytes(out)


def blind(target: Target, seed: int) -> Iterator[bytes]:
    """Inputs a few mutations away from a seed, for ever."""
    random = Random(seed)  # noqa: S311 - to be repeated, not to be secret

    def plain(data: bytes) -> bytes:
        return bytes_of(data, random)

    while True:
        data = random.choice(target.seeds)
        for _ in range(random.randint(1, 3)):
            data = target.mutate(data, random, plain)
        yield data


def json_of(text: bytes, random: Random, plain: Plain) -> bytes:
    """One to three changes of the document's values; what is no JSON is changed as bytes."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return plain(text)
    for _ in range(random.randint(1, 3)):
        document = _changed(document, random)
    ascii_only = random.randrange(2) == 0
    written = json.dumps(document, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    match random.randrange(64):
        case 0:
            return _doubled_key(written, random)
        case 1:
            return written.replace(b"{", b'{"deep": ' + b"[" * DEPTH + b"]" * DEPTH + b", ", 1)
        case _:
            return written


def _changed(value: Any, random: Random) -> Any:
    """Go down at random; the deeper, the likelier the change happens here."""
    if isinstance(value, dict) and value and random.randrange(8):
        name = random.choice(list(value))
        return _in_object(value, name, random)
    if isinstance(value, list) and value and random.randrange(4):
        at = random.randrange(len(value))
        return [*value[:at], _changed(value[at], random), *value[at + 1 :]]
    return _other(value, random)


def _in_object(value: dict[str, Any], name: str, random: Random) -> dict[str, Any]:
    match random.randrange(12):
        case 0:
            return {key: kept for key, kept in value.items() if key != name}
        case 1:
            return {**value, name + random.choice(("", "x", "\x00")): random.choice(NUMBERS)}
        case 2:
            return {**value, random.choice(list(value)): value[name]}
        case _:
            return {**value, name: _changed(value[name], random)}


def _other(value: Any, random: Random) -> Any:
    """Something in place of a value, of the same type as a rule."""
    if random.randrange(8) == 0:
        return random.choice((None, True, "", [], {}, [value], {"": value}, *NUMBERS))
    if isinstance(value, int | float):
        return _other_number(value, random)
    if isinstance(value, str):
        cut = random.randrange(len(value) + 1)
        return random.choice((*STRINGS, value[:cut], value + value[:cut], value.upper()))
    if isinstance(value, list):
        cut = random.randrange(len(value) + 1)
        return random.choice((value[:cut], value + value[:cut], value[::-1], value * 40, [[]]))
    return random.choice(NUMBERS)


def _other_number(value: float, random: Random) -> Any:
    try:
        scaled = value * 10.0 ** random.uniform(-40, 40)
        return random.choice((*NUMBERS, -value, value + 1, value * 1.01, value / 2, scaled))
    except OverflowError:
        return random.choice(NUMBERS)


def _doubled_key(text: bytes, random: Random) -> bytes:
    """The same key twice with different values: two readers may disagree on which counts."""
    name = random.choice((b"number", b"revision", b"signature", b"schema", b"theta", b"key_id"))
    return text.replace(b"{", b'{"' + name + b'": 1, ', 1)
