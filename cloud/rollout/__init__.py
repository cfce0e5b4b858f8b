"""Staged roll-outs of a bundle: the plan, what is decided of it, and who carries it out.

`plan` and `deciding` are pure; `conductor` orders releases by them.
"""
