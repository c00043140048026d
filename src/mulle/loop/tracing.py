"""A run's stages as spans of one trace, whichever processes worked on it."""

from __future__ import annotations

from datetime import timedelta

from mulle.core.clock import EPOCH
from mulle.core.ports.traces import Span, Traces
from mulle.core.records.run import FINAL, Run, RunEvent
from mulle.kernel.tracing import run_context, stage_context

__all__ = ["trace_run"]


def trace_run(traces: Traces, run: Run, event: RunEvent) -> None:
    """Tell of a stage that is over, or of the run when it has ended; of all other events nothing."""
    whole, ended = run_context(run.id), _nanoseconds(event.at - EPOCH)
    about = {"mulle.run": run.id, "mulle.model": run.model}
    if event.kind == "stage" and event.state in ("done", "skipped", "failed"):
        began = ended - int(event.seconds * 1e9)
        failed = str(event.detail.get("reason", "failed")) if event.state == "failed" else ""
        context = stage_context(run.id, event.name)
        name = f"run {event.name}"
        traces.add(Span(name=name, context=context, parent=whole, began=began, ended=ended, attributes=about, failed=failed))
    elif event.kind == "state" and event.name in FINAL:
        cause = run.causes[0] if run.causes else None
        about |= {"mulle.state": event.name, "mulle.cause": cause.why if cause else ""}
        failed = str(event.detail.get("reason", "failed")) if event.name == "failed" else ""
        began = _nanoseconds(run.created_at - EPOCH)
        traces.add(Span(name="run", context=whole, began=began, ended=ended, attributes=about, failed=failed))


def _nanoseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1) * 1000
