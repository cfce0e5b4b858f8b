"""Where samples come from: the car's CAN bus, a program's lines, or a recorded table.

Each module is one source, a function that yields items. Must never import a library that only one
of them needs before that one is chosen.
"""

from edge_agent.sources.items import BadRow, Item, Skipped, signal_names, to_sample
from edge_agent.sources.lines import read_json_lines
from edge_agent.sources.opening import opened, recorded
from edge_agent.sources.tables import read_file

__all__ = [
    "BadRow",
    "Item",
    "Skipped",
    "opened",
    "read_file",
    "read_json_lines",
    "recorded",
    "signal_names",
    "to_sample",
]
