"""Hostile input for whatever the agent reads from outside, and what must hold all the same.

A target is seeds, a mutator that knows the format, and a check that raises where a promise is
broken. Pure but for a state in a temporary folder; `run.py` drives them, guided by coverage.
"""
