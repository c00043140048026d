"""Prometheus text from the runtime's plain counters; computed when asked, never on the way of a request."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from mulle.lifecycle.serving.runtime import Runtime
from mulle.lifecycle.serving.tally import BOUNDS, Tally
from mulle.surfaces.inference.asgi import Reply

__all__ = ["Exposition"]


class Exposition(Collector):
    """Collects on demand; a registry of its own, so that two runtimes in one process do not meet."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        # Of the worker that is asked: its memory, processor time and open files.
        ProcessCollector(registry=self._registry)

    def reply(self) -> Reply:
        """Give the text as a reply."""
        return Reply(generate_latest(self._registry), type=CONTENT_TYPE_LATEST.encode())

    def describe(self) -> list[Metric]:
        """Name nothing ahead, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        tally = self._runtime.counted()
        requests = CounterMetricFamily("mulle_requests", "Requests", labels=["model", "version", "route", "status"])
        for (model, version, route, status), count in tuple(tally.requests.items()):
            requests.add_metric([model, version, route, str(status)], count)
        yield requests
        yield _latency(tally)
        yield _latency_by_model(tally)
        kinds = CounterMetricFamily("mulle_errors", "Requests without an answer", labels=["model", "version", "kind"])
        for labels, count in tuple(tally.kinds.items()):
            kinds.add_metric(labels, count)
        yield kinds
        rows = CounterMetricFamily("mulle_rows", "Rows scored, shadows too", labels=["model", "version", "route"])
        for labels, count in tuple(tally.rows.items()):
            rows.add_metric(labels, count)
        yield rows
        unseen = CounterMetricFamily("mulle_unseen", "Categories never seen in training", labels=["model", "feature"])
        for pair, count in tuple(tally.unseen.items()):
            unseen.add_metric(pair, count)
        yield unseen
        faults = CounterMetricFamily("mulle_challenger_faults", "Batches a challenger failed", labels=["model", "version"])
        for pair, count in tuple(tally.faults.items()):
            faults.add_metric(pair, count)
        yield faults
        unlogged = CounterMetricFamily("mulle_unlogged", "Rows answered that the log could not take", labels=["model"])
        for model, count in tuple(tally.unlogged.items()):
            unlogged.add_metric([model], count)
        yield unlogged
        left = CounterMetricFamily("mulle_shadow_dropped", "Rows that shadows left out under load", labels=["model", "version"])
        for pair, count in tuple(tally.dropped.items()):
            left.add_metric(pair, count)
        yield left
        told = CounterMetricFamily("mulle_labels", "Labels posted", labels=["outcome"])
        for outcome, count in tuple(tally.labels.items()):
            told.add_metric([outcome], count)
        yield told
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        runtime = self._runtime
        yield GaugeMetricFamily("mulle_queue_rows", "Rows waiting or being scored", runtime.waiting())
        yield GaugeMetricFamily("mulle_log_lag_seconds", "Age of what is logged and not in the lake", runtime.log_lag())
        yield GaugeMetricFamily("mulle_routes_generation", "Routing table in force", runtime.generation())
        info = GaugeMetricFamily("mulle_deployment_info", "Versions in force", labels=["model", "version", "route"])
        sizes = GaugeMetricFamily(
            "mulle_model_bytes", "Memory that a loaded version is counted with", labels=["model", "version"]
        )
        for name in runtime.table.loaded():
            force = runtime.routes(name)["in_force"]
            for part in force if isinstance(force, list) else []:
                info.add_metric([name, str(part["version"]), part["mode"]], 1)
            for loaded in {one for ready in runtime.table.ready(name) for one in ready.loaded}:
                sizes.add_metric([name, str(loaded.version)], loaded.size)
        yield info
        yield sizes


def _latency_by_model(tally: Tally) -> Metric:
    by_version: dict[tuple[str, str], list[int]] = {}
    for (model, version, place), count in tuple(tally.latency.items()):
        by_version.setdefault((model, version), [0] * (len(BOUNDS) + 1))[place] = count
    family = HistogramMetricFamily(
        "mulle_model_request_seconds", "Time to answer a request, by who answered its first row", labels=["model", "version"]
    )
    for labels, counts in sorted(by_version.items()):
        bounds = zip((*map(str, BOUNDS), "+Inf"), accumulate(counts), strict=True)
        family.add_metric(list(labels), list(bounds), tally.spent[labels])
    return family


def _latency(tally: Tally) -> Metric:
    buckets, total = [], 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), tally.buckets, strict=True):
        total += count
        buckets.append((bound, total))
    family = HistogramMetricFamily("mulle_request_seconds", "Time to answer a request")
    family.add_metric([], buckets, tally.seconds)
    return family
