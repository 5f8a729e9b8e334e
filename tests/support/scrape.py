"""Reading what the daemon tells Prometheus, with prometheus-client's own parser."""

from __future__ import annotations

import http.client
import socket
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Metrics:
    """The exporter of one daemon, at a port of the loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def setting(self) -> str:
        """The line of the configuration that asks for it."""
        return f'metrics = "127.0.0.1:{self.port}"'

    def get(
        self, path: str = "/metrics", *, method: str = "GET", accept: str = "text/plain"
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers={"Accept": accept})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read().decode()
        finally:
            connection.close()

    def families(self) -> list[Metric]:
        """One scrape."""
        status, _headers, text = self.get()
        assert status == 200, text
        return list(text_string_to_metric_families(text))

    def value(self, name: str, **labels: Any) -> float:
        """The sum of the samples of this name that have these labels; 0 where there is none."""
        return sum(
            sample.value
            for family in self.families()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
