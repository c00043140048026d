"""What people and programs are shown of a model's windows, and of any span of them as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from mulle.core.clock import EPOCH, instant, rfc3339
from mulle.core.declare.fleet import fleet_of
from mulle.core.declare.monitor import Monitor
from mulle.core.errors import UsageError
from mulle.core.records.base import Json, to_json
from mulle.core.records.deployment import champion_of, current
from mulle.core.records.model import ModelVersion
from mulle.core.records.window import Window
from mulle.lifecycle.monitoring.drift import Seen, reference_for, signals_of
from mulle.lifecycle.monitoring.kept import summed
from mulle.loop.monitoring.seen import bundle_of
from mulle.loop.parts import Parts
from mulle.loop.views.chain import known_model, paused_view

__all__ = ["monitor_view", "window_view"]

_MOST = 1_000


def monitor_view(
    parts: Parts, model: str, *, limit: int = 30, start: str | datetime | None = None, end: str | datetime | None = None
) -> Json:
    """Give a model's windows, oldest first, with every signal against its bound.

    Parameters
    ----------
    parts : Parts
    model : str
    limit : int
        Without a span the latest so many.
    start, end : str or datetime, optional
        All windows that lie in the span; ``span`` then judges their sum, one item for each bundle that they were held against.

    Raises
    ------
    NotFound
        When there is no such model.
    UsageError
        When the span ends before it starts.
    """
    if not known_model(parts, model):
        parts.project.model(model)
    champion = champion_of(current(parts.metadata.deployments.of(model), parts.clock.now()))
    head: Mapping[str, object] = {
        "id": model, "created_at": rfc3339(parts.clock.now()), "model": model, "champion": champion,
        "paused": paused_view(parts, model), "next_window": _next(parts, model) if champion else None,
    }  # fmt: skip
    if start is None and end is None:
        return {**head, "windows": [window_view(w) for w in _latest(parts, model, limit)]}
    first, last = (instant(at) if at is not None else None for at in (start, end))
    if first is not None and last is not None and last <= first:
        raise UsageError(f"the span from {rfc3339(first)} to {rfc3339(last)} is empty", next="give --to after --from")
    found = parts.metadata.windows.of(model, start=first, end=last, limit=_MOST)
    windows = [w for w in found if last is None or w.end <= last]
    return {**head, "windows": [window_view(w) for w in windows], "span": _span(parts, model, windows)}


def window_view(window: Window) -> Json:
    """Give a window of the prediction log with its signals, what late labels say, and how far off the estimate was."""
    view: Json = to_json(window)
    view.pop("histograms")
    for told in (view["performance"], *(s["performance"] for s in view["slices"])):
        if told:
            known = told["value"] is not None and told["estimate"] is not None
            told["estimate_error"] = told["estimate"] - told["value"] if known else None
    return view


def _next(parts: Parts, model: str) -> str | None:
    """Tell when the window that is under way ends, at the latest where windows are of so many rows."""
    declared, now = parts.project.models.get(fleet_of(model)), parts.clock.now()
    if declared is None:
        return None
    length = declared.monitor.longest
    return rfc3339(EPOCH + ((now - EPOCH) // length + 1) * length)


def _latest(parts: Parts, model: str, limit: int) -> Sequence[Window]:
    last = parts.metadata.windows.last(model, mature=False)
    if last is None:
        return ()
    # Windows by count are not of one length: a few more of them than fit are asked for.
    return parts.metadata.windows.of(model, end=last.end, limit=limit)[-limit:]


def _span(parts: Parts, model: str, windows: Sequence[Window]) -> list[Json]:
    declared = parts.project.models.get(fleet_of(model))
    monitor = declared.monitor if declared is not None else Monitor()
    versions = {v.bundle: v for v in parts.metadata.models.list(model, _MOST)}
    found = []
    for bundle in dict.fromkeys(w.bundle for w in windows if w.histograms):
        mine = [w for w in windows if w.bundle == bundle and w.histograms]
        told = {
            "version": versions[bundle].version if bundle in versions else None,
            "start": rfc3339(mine[0].start), "end": rfc3339(mine[-1].end), "windows": len(mine),
            "rows": sum(w.rows for w in mine),
        }  # fmt: skip
        found.append({**told, "signals": _judged(monitor, mine, versions.get(bundle))})
    return found


def _judged(monitor: Monitor, windows: Sequence[Window], version: ModelVersion | None) -> list[Json]:
    if version is None or not Path(version.address).is_dir():
        return []  # `mulle gc` may take a bundle that nothing needs; the windows' own signals stay
    _, reference = bundle_of(version.address)
    counted = summed(windows, reference)
    if counted is None:
        return []
    against, _ = reference_for(reference, monitor.reference, _part(monitor, windows), monitor.min_rows)
    seen = Seen(counted=counted, unseen=_total(windows, "unseen"), refused=_total(windows, "type_errors"))
    judged: list[Json] = to_json(signals_of(monitor, seen, against))
    return judged


def _part(monitor: Monitor, windows: Sequence[Window]) -> int:
    # A span of one weekday or month is held against that; any other against all.
    middles = [w.start + (w.end - w.start) / 2 for w in windows]
    parts = {m.month if monitor.reference == "same_month" else m.isoweekday() for m in middles}
    return parts.pop() if len(parts) == 1 else 0


def _total(windows: Sequence[Window], signal: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for window in windows:
        for told in window.signals:
            if told.signal == signal and told.value:
                # Of the rows that were asked the refused ones are not among the window's.
                rows = window.rows if signal == "unseen" else window.rows / max(1e-9, 1 - told.value)
                total[told.feature] = total.get(told.feature, 0) + round(told.value * rows)
    return total
