"""A vehicle's lineage as a picture: one row for each revision, one column for each branch (SVG).

Pure. Must never hold a script, nor text that was not escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from cloud.audit.lineage import Node, edges, label

ROW, COLUMN, LEFT, TOP, RADIUS = 34, 26, 24, 44, 8
TEXT_WIDTH: Final = 460
COLOURS: Final = {"applied": "#2e7d32", "refused": "#c62828", None: "#616161"}


def svg(vehicle_id: str, nodes: Sequence[Node]) -> str:
    """The newest revision comes first; a refused one is hollow."""
    rows = {node.number: index for index, node in enumerate(reversed(nodes))}
    branches = 1 + max((node.branch for node in nodes), default=0)
    width = LEFT + branches * COLUMN + TEXT_WIDTH
    height = TOP + ROW * max(len(nodes), 1)
    places = {node.number: _place(node, rows[node.number]) for node in nodes}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"',
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" role="img">',
        f"<title>Lineage of {escape(vehicle_id)}</title>",
        f'<text x="{LEFT - RADIUS}" y="20" font-weight="bold">{escape(vehicle_id)}</text>',
        *_lines(nodes, places),
        *(_circle(node, places[node.number], LEFT + branches * COLUMN) for node in nodes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _place(node: Node, row: int) -> tuple[int, int]:
    return LEFT + COLUMN * node.branch, TOP + ROW * row


def _lines(nodes: Sequence[Node], places: dict[int, tuple[int, int]]) -> Iterator[str]:
    for base, number in edges(nodes):
        if base in places:
            (x1, y1), (x2, y2) = places[base], places[number]
            bend = f"M{x1} {y1} C{x1} {y1 - ROW} {x2} {y2 + ROW} {x2} {y2}"
            yield f'<path d="{bend}" fill="none" stroke="#9e9e9e" stroke-width="2"/>'


def _circle(node: Node, place: tuple[int, int], text_at: int) -> str:
    x, y = place
    colour = COLOURS.get(node.row.verdict, "#616161")
    fill = "#ffffff" if node.row.verdict == "refused" else colour
    cause = node.revision.cause
    words = f"{node.number}  {label(node)}"
    if cause.ordered_by:
        words += f"  ({cause.ordered_by}: {cause.why})"
    return (
        f'<circle cx="{x}" cy="{y}" r="{RADIUS}" fill="{fill}" stroke="{colour}" '
        f'stroke-width="2"/><text x="{text_at}" y="{y + 4}">{escape(words)}</text>'
    )
