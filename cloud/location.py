"""Where the database is: a SQLite file, or a PostgreSQL URL.

Must never show a password: `str()` of a URL hides it, `full` is for the driver alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote

_URL: Final = re.compile(r"^postgres(ql)?(\+psycopg)?://")
_PASSWORD: Final = re.compile(r"(?<=:)[^:@/]*(?=@)|(?<=[?&]password=)[^&]*")


@dataclass(frozen=True)
class PostgresUrl:
    """A URL as libpq takes it."""

    full: str = field(repr=False)

    def __str__(self) -> str:
        return self._with_password("***")

    @property
    def password(self) -> str | None:
        """The password, as it is: for the environment of a program."""
        found = _PASSWORD.search(self.full.partition("://")[2])
        return unquote(found.group(0)) if found else None

    @property
    def without_password(self) -> str:
        """The URL for the arguments of a program, which everybody on the machine can read."""
        return self._with_password("")

    def _with_password(self, other: str) -> str:
        scheme, _, rest = self.full.partition("://")
        return f"{scheme}://{_PASSWORD.sub(other, rest)}"


Location = Path | PostgresUrl


def located(text: str) -> Location:
    """The location that a person names: `postgresql://…`, or else a path."""
    if _URL.match(text):
        return PostgresUrl(_URL.sub("postgresql://", text))
    return Path(text)
