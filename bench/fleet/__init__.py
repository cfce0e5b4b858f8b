"""The service under the load of a fleet: through a real broker, in the roles that a user runs.

Must never reach into the service: messages go in by MQTT, what was stored is read by its API.
"""
