"""Which parameters drive: what is believed, judged, on trial, confirmed, or made here meanwhile.

Must never let anything drive that invariant 5 does not allow.
"""
