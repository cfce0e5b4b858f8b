"""Every table of the service, so that whoever makes or migrates them misses none.

A module that declares tables is named here, and nowhere else.
"""

from __future__ import annotations

from sqlmodel import SQLModel

from cloud.store import (
    access_tables,
    alert_tables,
    audit_tables,
    event_tables,
    maintenance_tables,
    operator_tables,
    rollout_tables,
    tables,
    trace_tables,
)

__all__ = [
    "METADATA",
    "access_tables",
    "alert_tables",
    "audit_tables",
    "event_tables",
    "maintenance_tables",
    "operator_tables",
    "rollout_tables",
    "tables",
    "trace_tables",
]

METADATA = SQLModel.metadata
