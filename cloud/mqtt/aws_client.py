"""AWS's MQTT 5 client, set up as the service needs it.

Must never connect without TLS, nor without a certificate or a signature of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from awscrt import auth, io, mqtt5
from awscrt.exceptions import AwsCrtError
from awsiot import mqtt5_client_builder

from cloud.config import Mqtt, Tls
from cloud.errors import LinkError
from cloud.mqtt.session import Session

UNACKNOWLEDGED: Final = 100
"""Messages that AWS IoT Core may have open with one client; what bounds the inbox."""
LARGEST_PACKET_BYTES: Final = 1024 * 1024
SESSION_S: Final = 7 * 24 * 3600
"""As long as AWS IoT Core keeps a session at most."""
SHORTEST_KEEP_ALIVE_S: Final = 30
FIRST_DELAY_MS: Final = 250
LONGEST_DELAY_MS: Final = 30_000


@dataclass(frozen=True)
class Callbacks:
    """All come from the client's own thread, one at a time."""

    published: Callable[[mqtt5.PublishReceivedData], None]
    connected: Callable[[mqtt5.LifecycleConnectSuccessData], None]
    refused: Callable[[mqtt5.LifecycleConnectFailureData], None]
    disconnected: Callable[[mqtt5.LifecycleDisconnectData], None]
    stopped: Callable[[mqtt5.LifecycleStoppedData], None]


def build_client(config: Mqtt, callbacks: Callbacks, session: Session) -> mqtt5.Client:
    """A client that has not started. Raises LinkError when the files cannot be used."""
    # A thread of its own: a full inbox may hold this client, and no other one with it.
    threads = io.EventLoopGroup(1)
    bootstrap = io.ClientBootstrap(threads, io.DefaultHostResolver(threads))
    if config.aws.limits and config.keepalive_s < SHORTEST_KEEP_ALIVE_S:
        raise LinkError(f"keepalive_s is below the {SHORTEST_KEEP_ALIVE_S} s that AWS takes")
    common = _options(config, callbacks, session, bootstrap)
    try:
        if config.aws.sigv4_region is not None:
            return mqtt5_client_builder.websockets_with_default_aws_signing(
                region=config.aws.sigv4_region,
                credentials_provider=auth.AwsCredentialsProvider.new_default_chain(bootstrap),
                **common,
            )
        cert_file, key_file = _certificate(config.tls)
        return mqtt5_client_builder.mtls_from_path(cert_file, key_file, **common)
    except (AwsCrtError, RuntimeError, OSError) as error:
        raise LinkError(f"its TLS files cannot be used ({error}): {_files(config.tls)}") from error


def _options(
    config: Mqtt, callbacks: Callbacks, session: Session, bootstrap: io.ClientBootstrap
) -> dict[str, Any]:
    limits = mqtt5.ExtendedValidationAndFlowControlOptions
    return {
        "endpoint": config.host,
        "port": config.port,
        "ca_filepath": config.tls.ca_file if config.tls else None,
        "client_bootstrap": bootstrap,
        "client_id": session.client_id,
        "keep_alive_interval_sec": config.keepalive_s,
        "session_behavior": mqtt5.ClientSessionBehaviorType.REJOIN_ALWAYS,
        "session_expiry_interval_sec": min(session.expiry_s, SESSION_S),
        "receive_maximum": UNACKNOWLEDGED,
        "maximum_packet_size": LARGEST_PACKET_BYTES,
        "offline_queue_behavior": (
            mqtt5.ClientOperationQueueBehaviorType.FAIL_NON_QOS1_PUBLISH_ON_DISCONNECT
        ),
        "extended_validation_and_flow_control_options": (
            limits.AWS_IOT_CORE_DEFAULTS if config.aws.limits else limits.NONE
        ),
        # By itself it gives a message up after a minute; nobody sends that one again.
        "ack_timeout_sec": SESSION_S,
        "retry_jitter_mode": mqtt5.ExponentialBackoffJitterMode.FULL,
        "min_reconnect_delay_ms": FIRST_DELAY_MS,
        "max_reconnect_delay_ms": LONGEST_DELAY_MS,
        "on_publish_received": callbacks.published,
        "on_lifecycle_connection_success": callbacks.connected,
        "on_lifecycle_connection_failure": callbacks.refused,
        "on_lifecycle_disconnection": callbacks.disconnected,
        "on_lifecycle_stopped": callbacks.stopped,
        "enable_metrics_collection": False,
    }


def _certificate(tls: Tls | None) -> tuple[str, str]:
    if tls is None or tls.cert_file is None or tls.key_file is None:
        raise LinkError(
            'transport "aws" needs [mqtt.tls] cert_file and key_file, or [mqtt.aws] sigv4_region'
        )
    return tls.cert_file, tls.key_file


def _files(tls: Tls | None) -> str:
    files = (tls.ca_file, tls.cert_file, tls.key_file) if tls else ()
    return ", ".join(file for file in files if file) or "those of the system"
