"""The live view: a picture of the running agent for this machine's own screens.

Read-only, on the loopback alone. Must never cost the sample's way more than a glance.
"""
