"""How long the vehicle's own certificate still holds, in words for `check` and `status`.

Must never judge whether a broker lets the certificate in.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from edge_agent.config import Mqtt, Tls
from edge_agent.errors import LinkError

WARN_DAYS = 30


def days_left(tls: Tls, now: datetime) -> float:
    """Until the certificate expires; negative afterwards. Raises LinkError."""
    from cryptography import x509  # noqa: PLC0415 - a megabyte that driving has no use for

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


def facts(mqtt: Mqtt, now: datetime, complain: Callable[[str], None]) -> dict[str, float | None]:
    """For `status`: nothing without TLS; `complain` hears what somebody should act on."""
    if mqtt.tls is None:
        return {}
    try:
        days = days_left(mqtt.tls, now)
    except LinkError as error:
        complain(str(error))
        return {"certificate_days_left": None}
    if is_urgent(days):
        complain(told(days))
    return {"certificate_days_left": round(days, 1)}
