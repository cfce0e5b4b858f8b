"""The demonstration: a whole fleet, its broker and its cloud service on one machine.

Must never hold a second copy of what the vehicle or the cloud does: it starts the real ones and
watches them.
"""
