"""What the agent costs and what it survives, on this machine: `python -m bench.edge`.

Each part is a module with `measure(*, quick) -> list[Figure]`; `parts.py` names them. Must never
assert a time: the table beside the goals is the result.
"""
