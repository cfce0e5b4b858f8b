"""The service's way to the broker, whichever client carries it.

Must never decide what a message means.
"""
