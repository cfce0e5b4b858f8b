"""Who may ask for something: a name, a role, and the cohorts that are there for it.

Pure. Must never hold what somebody has shown to be let in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["viewer", "operator", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)  # each may what those before it may


@dataclass(frozen=True)
class Actor:
    """A caller. `cohorts` are those whose vehicles it may see and touch; None: all of them."""

    name: str
    role: Role
    cohorts: frozenset[str] | None = None

    def has(self, role: Role) -> bool:
        """Whether it may do what `role` may."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def may_see(self, cohort: str) -> bool:
        """Whether the vehicles of a cohort are this caller's to see."""
        return self.cohorts is None or cohort in self.cohorts
