"""Speed and memory, measured by anyone: `python -m bench.NAME [--quick] [--json]`.

Must never assert a time: a table with ratios against the peers of the same run is the result.
"""
