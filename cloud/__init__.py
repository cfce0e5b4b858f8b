"""The cloud service: ingest, calibration, revisions, operator API.

Must never import `edge_agent` or `firmware_sim`: it meets vehicles through the contract alone.
"""

__version__ = "0.1.0"
