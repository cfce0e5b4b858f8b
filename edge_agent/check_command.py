"""`edge-agent check`: would the agent start here? Files, keys, TLS, and one prediction.

Must never open the state nor the network: it runs beside the agent, and before an upgrade.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

import numpy as np

from common.bundle import Bundle
from common.errors import BundleError
from common.model import VoltageModel
from common.signing import key_id, load_public_key
from edge_agent import __version__
from edge_agent.bundle_update.start import installed_bundle
from edge_agent.config import Config
from edge_agent.link import MqttLink


def run(_options: argparse.Namespace, config: Config, tell: Callable[[str], None] = print) -> int:
    """Try everything that a start needs. Raises the error that the start would raise."""
    bundle = installed_bundle(config)
    keys = [key_id(load_public_key(config.path(name))) for name in config.trusted_keys]
    MqttLink(config.vehicle_id, config.mqtt, b"", random.Random())  # noqa: S311 - never started
    voltage = _predict(bundle)
    tell(f"agent     {__version__}, vehicle {config.vehicle_id}")
    tell(f"bundle    {bundle.sha256[:16]}, {voltage:.3f} V in the middle of its ranges")
    tell(f"keys      {', '.join(keys)}")
    secured = "mutual TLS" if config.mqtt.tls else "without TLS"
    tell(f"broker    {config.mqtt.host}:{config.mqtt.port}, {secured} (not tried)")
    return 0


def _predict(bundle: Bundle) -> float:
    """One row through the graph: the runtime loads here, and its answer is a number."""
    manifest = bundle.manifest
    row = [(feature.minimum + feature.maximum) / 2 for feature in manifest.features]
    nominal = [parameter.nominal for parameter in manifest.parameters]
    voltage = float(VoltageModel(bundle).predict([row], nominal)[0])
    if not np.isfinite(voltage):
        raise BundleError(bundle.path, "its prediction is no number", "Train or import it again.")
    return voltage
