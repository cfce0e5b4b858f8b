"""What the service says of itself: logs, metrics, traces.

Must never change what it watches.
"""
