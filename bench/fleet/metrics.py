"""What the service counts, read as Prometheus would.

Must never be asked more often than a person would: it takes time from what is measured.
"""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.fleet.staging import Installation


def total(at: Installation, name: str) -> float:
    """The sum of a counter's samples, over its labels and over every process."""
    return sum(
        sample.value
        for url in at.metrics
        for family in text_string_to_metric_families(_text(url, at.api_key))
        for sample in family.samples
        if sample.name == name
    )


def _text(url: str, api_key: str) -> str:
    answer = httpx.get(url, headers={"Authorization": f"Bearer {api_key}"}, timeout=30)
    answer.raise_for_status()
    return answer.text
