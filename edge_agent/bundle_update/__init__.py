"""Another bundle over the air: announced, fetched in verified chunks, self-tested, swapped, tried.

Must never touch the bundle that the configuration names: it is what remains when all else fails.
"""
