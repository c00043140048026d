"""A stream's figures for Prometheus, on a small port of their own; worked out when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mulle.core.errors import UsageError
from mulle.core.ports.stream import Flow
from mulle.lifecycle.serving.tally import Tally

__all__ = ["FlowMetrics", "serve_metrics"]


class FlowMetrics(Collector):
    """Collects a stream's counters on demand."""

    def __init__(self, model: str, flow: Flow, tally: Tally) -> None:
        self._model, self._flow, self._tally = model, flow, tally

    def describe(self) -> list[Metric]:
        """Name nothing ahead, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        flow, model = self._flow, self._model
        messages = CounterMetricFamily("mulle_stream_messages", "Messages read and committed", labels=["model", "outcome"])
        for outcome, count in (("answered", flow.answered), ("dead", flow.dead), ("skipped", flow.skipped)):
            messages.add_metric([model, outcome], count)
        yield messages
        ends = CounterMetricFamily("mulle_stream_transactions", "Transactions by their end", labels=["model", "outcome"])
        for outcome, count in (("committed", flow.transactions), ("aborted", flow.aborted)):
            ends.add_metric([model, outcome], count)
        yield ends
        lag = GaugeMetricFamily("mulle_stream_lag_messages", "Messages not read yet", labels=["model", "topic", "partition"])
        for (topic, partition), count in tuple(flow.lag.items()):
            lag.add_metric([model, topic, str(partition)], count)
        yield lag
        yield CounterMetricFamily("mulle_stream_sessions", "Times that the brokers were connected to", flow.sessions)
        rows = CounterMetricFamily("mulle_rows", "Rows scored, shadows too", labels=["model", "version", "route"])
        for labels, count in tuple(self._tally.rows.items()):
            rows.add_metric(labels, count)
        yield rows
        unseen = CounterMetricFamily("mulle_unseen", "Categories never seen in training", labels=["model", "feature"])
        for pair, count in tuple(self._tally.unseen.items()):
            unseen.add_metric(pair, count)
        yield unseen


def serve_metrics(metrics: FlowMetrics, host: str, port: int) -> int:
    """Serve ``/metrics``; return the port, chosen when 0 was asked for.

    Raises
    ------
    UsageError
        When the port is taken.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise UsageError(f"port {port} of {host} is taken", next="name another with --metrics-port, or 0 for any") from error
    return int(server.server_port)
