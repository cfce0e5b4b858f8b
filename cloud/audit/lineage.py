"""From which revisions, breaches and priors a vehicle's revisions came: a graph of plain values.

Pure. Must never leave out a revision that was refused: it is part of the history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloud.store.tables import RevisionRow
from common.revision import Revision, decode_revision


@dataclass(frozen=True)
class Node:
    """A revision and what it came from; `branch` is the column in which it is drawn."""

    row: RevisionRow
    revision: Revision
    branch: int

    @property
    def number(self) -> int:
        """In its vehicle's chain."""
        return self.row.number

    @property
    def breach(self) -> str | None:
        """The message that it was calibrated on."""
        cause = self.revision.cause
        calibrated = cause.kind in {"breach", "recalibration"}
        return (cause.replays or cause.message_id) if calibrated else None


def lineage(rows: Iterable[RevisionRow]) -> list[Node]:
    """The nodes of a vehicle's revisions, by number. Raises ContractError."""
    nodes: list[Node] = []
    tips: dict[int, int] = {}  # the branch that each revision is the end of
    columns = 0
    for row in rows:
        revision = decode_revision(row.content)
        branch = tips.pop(revision.base, None)
        if branch is None:
            branch, columns = columns, columns + 1
        tips[row.number] = branch
        nodes.append(Node(row, revision, branch))
    return nodes


def edges(nodes: Iterable[Node]) -> Iterable[tuple[int, int]]:
    """(base, revision) of every revision that came from another."""
    return [(node.revision.base, node.number) for node in nodes if node.revision.base]


def label(node: Node) -> str:
    """A few words for a picture."""
    cause = node.revision.cause
    words: Mapping[str, str] = {
        "roll_back": f"back to {cause.returns_to}",
        "recalibration": f"replayed from {cause.returns_to}",
        "replacement": "battery replaced",
        "fleet_prior": f"fleet prior {node.revision.prior_version}",
    }
    return words.get(cause.kind, cause.trip_id or "")
