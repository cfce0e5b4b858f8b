"""What a revision was made from, beyond what its signed content says: kept beside it.

The content holds the SHA-256 of these bytes, so that the signature covers them, too. Must never
hold what can be read off the content.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from typing import Final

import msgspec
import numpy as np

from common.calibration import Settings
from common.errors import MalformedMessageError

SCHEMA: Final = 1


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """`prior` is the version of the fleet's prior that was the newest; 0 stands for none.

    `running` is the revision that the vehicle ran, `provisional` the step of its own; `failures`
    breaches before had brought none; the battery came at the odometer `battery_from`. `order` names
    what an operator ordered.
    """

    schema: int = SCHEMA
    settings: Settings = Settings()
    prior: int = 0
    running: int = 0
    provisional: int = 0
    failures: int = 0
    battery_from: float = 0.0
    platform: str = ""
    order: str = ""


def encode(inputs: Inputs) -> bytes:
    """The bytes that are kept and hashed."""
    return msgspec.json.encode(inputs)


def decode(content: bytes) -> Inputs:
    """The inverse. Raises MalformedMessageError."""
    try:
        return msgspec.json.decode(content, type=Inputs)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedMessageError("Inputs", str(error)) from error


def hash_of(content: bytes) -> str:
    """By which the signed content names them."""
    return hashlib.sha256(content).hexdigest()


@cache
def this_platform() -> str:
    """What the last bits of a result may depend on: processor, numpy, threads of its BLAS."""
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "all"
    return f"{platform.machine()} {platform.system()} numpy-{np.__version__} threads-{threads}"
