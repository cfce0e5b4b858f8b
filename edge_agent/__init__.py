"""The agent on the vehicle: predict, compare, keep, decide, publish, and judge what comes back.

Must never import `cloud`, nor anything heavier than numpy, the TFLite runtime, paho-mqtt, msgspec
and one crypto library.
"""

__version__ = "0.1.0"
