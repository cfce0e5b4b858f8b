"""What stands in for real vehicles: a published synthetic fleet whose batteries age.

Must never import `edge_agent`, `cloud` or `common`, the fleet runner apart: it speaks to them
through the public contract (files, frames, MQTT).
"""
