"""ETags of what operators change, and If-Match: nobody overwrites what they have not seen.

Must never compare anything but what the client was shown.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from cloud.api.problems import ProblemError

IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", max_length=256, description="The ETag of what is to be changed."),
]


def etag_of(shown: BaseModel) -> str:
    """The strong ETag of what a client is shown."""
    return f'"{hashlib.sha256(shown.model_dump_json().encode()).hexdigest()[:32]}"'


def check_match(given: str | None, etag: str, *, required: bool = False) -> None:
    """Raises ProblemError: 412 where another state is meant, 428 where none is given but needed."""
    if given is None:
        if required:
            raise ProblemError(428, "If-Match is needed: read it first, and send its ETag.")
        return
    if given.strip() != "*" and etag not in {tag.strip() for tag in given.split(",")}:
        raise ProblemError(412, f"It has changed meanwhile: its ETag is {etag} now.")
