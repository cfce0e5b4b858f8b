"""What goes down to the vehicles: revisions, declines, statements about keys, releases.

Must never publish what is not committed.
"""
