"""What a broker allows one connection: AWS IoT Core's bounds, or less where its CONNACK says so.

Pure. Must never allow more than AWS IoT Core does: both brokers see the same vehicle.
"""

from __future__ import annotations

from dataclasses import dataclass

from paho.mqtt.properties import Properties

from common.messages import MAX_PAYLOAD_BYTES

OVERHEAD_BYTES = 160
"""Of a PUBLISH beside its payload: the longest topic of the contract, header, packet id."""


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """`in_flight`: publishes without their PUBACK. `packet_bytes`: one whole PUBLISH."""

    in_flight: int = 100
    packet_bytes: int = MAX_PAYLOAD_BYTES + OVERHEAD_BYTES
    takes_qos1: bool = True
    retains: bool = True

    def fits(self, payload_bytes: int) -> bool:
        """Whether the broker takes a message of that size."""
        return payload_bytes + OVERHEAD_BYTES <= self.packet_bytes


AWS_IOT_CORE = BrokerLimits()


def limits_of(connack: Properties | None) -> BrokerLimits:
    """MQTT 5, 3.2.2.3: Receive Maximum, Maximum Packet Size, Maximum QoS, Retain Available.

    (Server Keep Alive is paho's business. MQTT 3.1.1 says nothing: `connack` is empty.)
    """
    return BrokerLimits(
        in_flight=min(AWS_IOT_CORE.in_flight, getattr(connack, "ReceiveMaximum", 65535)),
        packet_bytes=min(
            AWS_IOT_CORE.packet_bytes, getattr(connack, "MaximumPacketSize", 0xFFFFFFFF)
        ),
        takes_qos1=getattr(connack, "MaximumQoS", 2) > 0,
        retains=bool(getattr(connack, "RetainAvailable", 1)),
    )
