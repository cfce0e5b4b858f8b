"""Text columns of large tables, made without a Python string for each row.

Pure. Must never know what a table is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def chosen(index: IntArray, texts: Sequence[str]) -> Any:
    """`texts[index]` as an Arrow column; a million Python strings would take seconds."""
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(texts)).cast(pa.string())


def moments(unix_s: FloatArray) -> Any:
    """Unix times as RFC 3339 in UTC, to the second."""
    unique, index = np.unique(unix_s, return_inverse=True)
    texts = [f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}" for moment in unique]
    return chosen(index, texts)
