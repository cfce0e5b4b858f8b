"""What vehicle and cloud share: messages, bundles, signatures, and the calibration mathematics.

Must never import `edge_agent`, `cloud` or `firmware_sim`, nor anything heavier than numpy, msgspec,
one crypto library and the TFLite runtime: all of this runs on the vehicle.
"""
