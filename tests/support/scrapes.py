"""Scrapes of metrics, read by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Scrape:
    """The values of one scrape."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def sum(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, having), value in self.samples.items() if found == name and wanted <= having)

    def values(self, name: str, label: str) -> set[str]:
        """The values of a label of this name."""
        return {dict(labels)[label] for found, labels in self.samples if found == name}

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """The values that must never fall."""
        endings = ("_total", "_count", "_bucket")
        return {key: value for key, value in self.samples.items() if key[0].endswith(endings)}


def fetch(url: str) -> str:
    """Get this URL on a connection of its own. An `httpx.get` makes a TLS context, which takes 30 ms."""
    with urlopen(url, timeout=20) as response:
        return str(response.read().decode())


def scrape(url: str) -> Scrape:
    """Get the metrics at this URL."""
    return Scrape(fetch(url))


REQUESTS = "http_server_request_duration_seconds_count"
"""The number of requests, by method, route, status and error."""
