"""The loop's figures as Prometheus text: runs, windows, alerts; worked out from the records when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from mulle.core.records.run import FINAL
from mulle.loop.parts import Parts
from mulle.loop.views.chain import model_names

__all__ = ["LoopMetrics"]

_PAGE = 1_000


class LoopMetrics(Collector):
    """Collects on demand; runs that have ended are read once."""

    def __init__(self, parts: Callable[[], Parts]) -> None:
        self._parts = parts
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._known: set[str] = set()
        self._under_way: dict[str, tuple[str, str]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Give the text."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Name nothing ahead, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        parts = self._parts()
        yield from self._runs(parts)
        yield from _windows(parts)
        alerts = GaugeMetricFamily("mulle_alerts_open", "Open alerts", labels=["model", "severity"])
        opened = Counter((a.model, a.severity) for a in parts.metadata.alerts.list(state="open", limit=10_000))
        for labels, count in sorted(opened.items()):
            alerts.add_metric(labels, count)
        yield alerts
        yield GaugeMetricFamily(
            "mulle_alerts_untold", "Events of alerts that a receiver is still to be told", parts.metadata.outbox.count()
        )

    def _runs(self, parts: Parts) -> Iterator[Metric]:
        after: str | None = None
        while page := parts.metadata.runs.list(limit=_PAGE, after=after):
            fresh = [run for run in page if run.id not in self._known]
            self._known |= {run.id for run in fresh}
            self._under_way |= {run.id: (run.model, run.causes[0].type if run.causes else "") for run in fresh}
            # Newest first: what follows a page without a new run was read before.
            if not fresh or len(page) < _PAGE:
                break
            after = page[-1].id
        states = parts.metadata.runs.states(list(self._under_way))
        present: Counter[tuple[str, str, str]] = Counter()
        for run, (model, cause) in tuple(self._under_way.items()):
            labels = (model, states.get(run, "queued"), cause)
            if labels[1] in FINAL:
                self._ended[labels] += 1
                del self._under_way[run]
            else:
                present[labels] += 1
        # What may fall again is no counter, so that runs count here when they have ended.
        ended = CounterMetricFamily("mulle_runs", "Runs that ended", labels=["model", "state", "cause"])
        under_way = GaugeMetricFamily("mulle_runs_under_way", "Runs that wait or run", labels=["model", "state", "cause"])
        for family, counted in ((ended, self._ended), (under_way, present)):
            for labels, count in sorted(counted.items()):
                family.add_metric(labels, count)
            yield family


def _windows(parts: Parts) -> Iterator[Metric]:
    drift = GaugeMetricFamily("mulle_drift", "Signals of the last window", labels=["model", "feature", "signal"])
    performance = GaugeMetricFamily("mulle_performance", "Metric over late labels, last window", labels=["model", "metric"])
    for model in model_names(parts):
        latest = parts.metadata.windows.last(model, mature=False)
        for signal in latest.signals if latest else ():
            if signal.value is not None:
                drift.add_metric([model, signal.feature, signal.signal], signal.value)
        mature = parts.metadata.windows.last(model)
        if mature is not None and mature.performance is not None and mature.performance.value is not None:
            performance.add_metric([model, mature.performance.metric], mature.performance.value)
    yield drift
    yield performance
