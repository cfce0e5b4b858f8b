"""`edge-agent check`: would the agent start here? Files, keys, TLS, the source, and one prediction.

Must never open the state, the network nor the bus: it runs beside the agent, and before an upgrade.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np

from common.bundle import Bundle
from common.errors import BundleError
from common.manifest import Manifest
from common.model import VoltageModel
from common.signing import key_id, load_public_key
from edge_agent import __version__, sources
from edge_agent.bundle_update.start import installed_bundle
from edge_agent.config import Config, Mqtt
from edge_agent.mqtt.certificate_expiry import days_left, told
from edge_agent.mqtt.link import MqttLink
from edge_agent.mqtt.tls import alpn_of


def run(_options: argparse.Namespace, config: Config, tell: Callable[[str], None] = print) -> int:
    """Try everything that a start needs. Raises the error that the start would raise."""
    bundle = installed_bundle(config)
    keys = [
        key_id(load_public_key(config.path(name)))
        for name in (*config.trusted_keys, *config.root_keys)
    ]
    MqttLink(config.vehicle_id, config.mqtt, b"", random.Random())  # noqa: S311 - never started
    voltage = _predict(bundle)
    source = _source(config, bundle.manifest)
    tell(f"agent     {__version__}, vehicle {config.vehicle_id}")
    tell(f"bundle    {bundle.sha256[:16]}, {voltage:.3f} V in the middle of its ranges")
    tell(f"keys      {', '.join(keys)}")
    tell(f"broker    {config.mqtt.host}:{config.mqtt.port}, {_secured(config.mqtt)} (not tried)")
    if config.mqtt.tls is not None:
        tell(f"tls       {told(days_left(config.mqtt.tls, datetime.now(UTC)))}")
    tell(f"source    {source}")
    return 0


def _secured(mqtt: Mqtt) -> str:
    if mqtt.tls is None:
        return "without TLS"
    alpn = alpn_of(mqtt)
    return f"mutual TLS, ALPN {alpn}" if alpn else "mutual TLS"


def _source(config: Config, manifest: Manifest) -> str:
    """What samples would come from: a DBC that has every signal, a table that has every column."""
    source = config.source
    if source.kind == "stdin":
        return "lines on standard input"
    items = sources.opened(config, manifest)
    if source.kind == "file":
        is_empty = next(items, None) is None
        return f"{source.path}{', which holds no row' if is_empty else ''}"
    assert source.can is not None  # noqa: S101 - the configuration was checked
    return f"{source.can.interface} {source.can.channel}, read with {source.can.dbc} (not opened)"


def _predict(bundle: Bundle) -> float:
    """One row through the graph: the runtime loads here, and its answer is a number."""
    manifest = bundle.manifest
    row = [(feature.minimum + feature.maximum) / 2 for feature in manifest.features]
    nominal = [parameter.nominal for parameter in manifest.parameters]
    voltage = float(VoltageModel(bundle).predict([row], nominal)[0])
    if not np.isfinite(voltage):
        raise BundleError(bundle.path, "its prediction is no number", "Train or import it again.")
    return voltage
