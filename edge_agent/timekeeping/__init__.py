"""Time on a computer that may not know it: boots, seconds since, stamps, and putting them right.

Must never call a wall time known that is not.
"""
