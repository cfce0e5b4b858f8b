"""What the configuration files of both sides share: types of their fields, reading, relative paths.

Must never guess: an unknown key is an error that names it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

# Labels of up to 63 characters, or an IPv6 address; without spaces.
_HOST = r"^[^\s\x00.]{1,63}(\.[^\s\x00.]{1,63})*\.?\Z"
Host = Annotated[str, msgspec.Meta(pattern=_HOST, max_length=253)]
File = Annotated[str, msgspec.Meta(min_length=1, pattern=r"^[^\x00]+\Z")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

C = TypeVar("C", bound=msgspec.Struct)
T = TypeVar("T", bound=msgspec.Struct)


def decode_settings(raw: bytes, kind: type[C]) -> C:
    """The TOML as `kind`, whose field `base` is the loader's own.

    Raises msgspec.MsgspecError and UnicodeDecodeError.
    """
    content = msgspec.toml.decode(raw)
    if "base" in content:
        raise msgspec.ValidationError("Object contains unknown field `base`")
    return msgspec.convert(content, kind)


def below(files: T | None, base: Path) -> T | None:
    """The same files; each path (the fields that end in `_file`) is taken relative to `base`."""
    if files is None:
        return None
    paths = [name for name in files.__struct_fields__ if name.endswith("_file")]
    named = {name: getattr(files, name) for name in paths}
    found = {name: str(base / file) for name, file in named.items() if file is not None}
    return msgspec.structs.replace(files, **found)
