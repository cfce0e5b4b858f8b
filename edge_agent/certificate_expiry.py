"""How long the vehicle's own certificate still holds, in words for `check` and `status`.

Must never judge whether a broker lets the certificate in.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

from cryptography import x509

from edge_agent.config import Mqtt, Tls
from edge_agent.errors import LinkError

WARN_DAYS = 30


def days_left(tls: Tls, now: datetime) -> float:
    """Until the certificate expires; negative afterwards. Raises LinkError."""
    try:
        certificate = x509.load_pem_x509_certificates(Path(tls.cert_file).read_bytes())[0]
    except (OSError, ValueError) as error:
        raise LinkError((tls.cert_file,), error) from error
    return (certificate.not_valid_after_utc - now).total_seconds() / 86_400


def is_urgent(days: float) -> bool:
    """Whether somebody should do something."""
    return days < WARN_DAYS


def told(days: float) -> str:
    """One phrase; what is urgent says what to do."""
    if days < 0:
        return f"certificate EXPIRED {-days:.0f} days ago: enroll again, no broker lets it in"
    if is_urgent(days):
        return f"certificate holds for {days:.0f} more days ONLY: renew it (edge-agent enroll)"
    return f"certificate holds for {days:.0f} more days"


def certificate_facts(mqtt: Mqtt, now: datetime) -> dict[str, float | None]:
    """For `status`: nothing without TLS; on stderr what somebody should do something about."""
    if mqtt.tls is None:
        return {}
    try:
        days = days_left(mqtt.tls, now)
    except LinkError as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return {"certificate_days_left": None}
    if is_urgent(days):
        print(f"edge-agent: {told(days)}", file=sys.stderr)
    return {"certificate_days_left": round(days, 1)}
