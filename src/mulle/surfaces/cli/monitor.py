"""A model's windows in a terminal, and as a page: what moved most comes first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from mulle.surfaces.cli.session import session, write_page
from mulle.surfaces.words import moment

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mulle.core.records.base import Json

__all__ = ["monitor", "monitored"]

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = 20


def monitor(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument()],
    limit: Annotated[int, typer.Option(help="At most so many windows.", min=1, max=1000)] = 30,
    start: Annotated[str | None, typer.Option("--from", help="Judge all windows from here as one (RFC 3339).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="... up to here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a report as one HTML page.")] = None,
) -> None:
    """Show a model's latest windows: drift, quality and performance against their bounds, what moved most first.

    With --from or --to the windows of that span are also judged as one.
    """
    from mulle.loop.monitoring.windows import monitor_view

    call = session(ctx)
    view = monitor_view(call.standing, model, limit=limit, start=start, end=end)
    if html is not None:
        from mulle.surfaces.monitor_page import monitor_page

        write_page(html, monitor_page(view))
    call.show(view, monitored)


def monitored(view: Json) -> list[RenderableType]:
    """Draw the signals over the windows, the performance beside its estimate, and the span where one was asked for."""
    from mulle.surfaces.cli.table import table
    from mulle.surfaces.monitor_page import judged, nothing_yet, worst_first

    windows, shown = view["windows"], []
    if not windows:
        return [escape(nothing_yet(view)), *_paused(view)]
    ranked = worst_first(windows)
    rows = [
        (s["feature"], s["signal"], _drawn(s["values"]), s["last"]["value"], s["last"]["bound"], _chance(s["last"]),
         judged(s["last"]), s["alarms"] or None)
        for s in ranked[:_SHOWN]
    ]  # fmt: skip
    columns = ("feature", "signal", "over time", "last", "bound", "by chance", "verdict", "windows that alarmed")
    title = f"Signals of {view['model']} over {len(windows)} windows"
    shown.append(table(title if len(ranked) <= _SHOWN else f"{title}, {_SHOWN} of {len(ranked)}", columns, rows))
    shown.append(table("Windows", _WINDOW, [_window(w) for w in windows]))
    slices = [_slice(s) for w in windows[-1:] for s in w["slices"]]
    if slices:
        shown.append(table("The last window by slice", ("slice", "rows", "metric", "value", "labels", "verdict"), slices))
    for span in view.get("span", ()):
        loud = [s for s in span["signals"] if s["bound"] is not None]
        loud = sorted(loud, key=lambda s: (s["verdict"] != "alarm", s["verdict"] == "calendar", -_ratio(s)))[:_SHOWN]
        held = [(s["feature"], s["signal"], s["value"], s["bound"], _chance(s), judged(s)) for s in loud]
        when = f"{moment(span['start'])} to {moment(span['end'])} as one"
        head = f"{when}: {span['windows']} windows, {span['rows']:,} rows, held against version {span['version']}"
        shown.append(table(head, ("feature", "signal", "value", "bound", "by chance", "verdict"), held))
    return [*shown, *_paused(view)]


def _paused(view: Json) -> list[RenderableType]:
    paused = view.get("paused")
    return [f"its automation is paused by {escape(paused['by'])} ({escape(paused['why'])})"] if paused else []


_WINDOW = (
    "from", "to", "rows", "held against", "mature", "metric", "value", "estimate", "off by", "labels", "never", "verdict",
    "alarms",
)  # fmt: skip


def _window(window: Json) -> tuple[object, ...]:
    told = window["performance"] or {}
    share = f"{told['labels_share']:.0%}" if told else None
    # What alarms is named above; here a number, for a row of many names hides the others.
    loud = sum(s["verdict"] == "alarm" for s in window["signals"]) or None
    return (
        moment(window["start"]), moment(window["end"]), window["rows"], window["reference"],
        "yes" if window["mature"] else "not yet", told.get("metric"), told.get("value"), told.get("estimate"),
        told.get("estimate_error"), share, told.get("never") or None, told.get("verdict"), loud,
    )  # fmt: skip


def _slice(told: Json) -> tuple[object, ...]:
    found = told["performance"]
    name = f"{told['column']} = {told['value'] or 'null'}"
    return (name, told["rows"], found["metric"], found["value"], f"{found['labels_share']:.0%}", found["verdict"])


def _drawn(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    top = max(known, default=0.0) or 1.0
    return "".join(" " if v is None else _BARS[min(7, int(8 * max(0.0, v) / top))] for v in values)


def _chance(signal: Json) -> str | None:
    value = signal["p_value"]
    return None if value is None else f"{value:.1g}"


def _ratio(signal: Json) -> float:
    return float((signal["value"] or 0.0) / (signal["bound"] or 1e-9))
