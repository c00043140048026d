"""A model's windows as one page that needs no network: performance with its estimate, and every signal over time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mulle.core.records.base import Json
from mulle.surfaces.figures_page import figures_page

__all__ = ["judged", "monitor_page", "nothing_yet", "worst_first"]

_DRAWN = 12


def worst_first(windows: Sequence[Json]) -> list[Json]:
    """Line up each signal over the windows: those that alarm now, then those that did, then by how near they are to their bound.

    What is not judged comes last.

    Returns
    -------
    list of dict
        ``feature``, ``signal``, ``values`` (by window, None where it was not measured), ``last`` (of the newest
        window) and ``alarms`` (in how many windows).
    """
    found: dict[tuple[str, str], Json] = {}
    for place, window in enumerate(windows):
        for told in window["signals"]:
            named = {"feature": told["feature"], "signal": told["signal"]}
            nothing = {**told, "value": None, "p_value": None, "verdict": "-"}
            blank = {**named, "values": [None] * len(windows), "last": nothing, "alarms": 0}
            line = found.setdefault((told["feature"], told["signal"]), blank)
            line["values"][place] = told["value"]
            line["last"] = told if place == len(windows) - 1 else line["last"]
            line["alarms"] += told["verdict"] == "alarm"
    return sorted(found.values(), key=_calm)


def judged(signal: Json) -> str:
    """Write a signal's verdict; of a feature that tells nothing but the time, that there is none."""
    return "calendar: not judged" if signal["verdict"] == "calendar" else str(signal["verdict"])


def nothing_yet(view: Json) -> str:
    """Say why there is no window, and when there will be one."""
    if view["champion"] is None:
        return f"no version of {view['model']} answers yet"
    upcoming = f"; the one under way ends by {view['next_window']}" if view["next_window"] else ""
    return f"no window has ended{upcoming}"


def monitor_page(view: Json) -> str:
    """Render the page.

    Parameters
    ----------
    view : dict
        What `mulle.loop.monitoring.windows.monitor_view` gave.

    Returns
    -------
    str
        HTML; plotly.js is inside.
    """
    windows = view["windows"]
    if not windows:
        return figures_page(view["model"], f"<p>{escape(nothing_yet(view))}</p>", {})
    ranked = worst_first(windows)
    figures = {"performance": _performance(windows)} if any(w["performance"] for w in windows) else {}
    at = [w["end"] for w in windows]
    drawn = [line for line in ranked if any(v is not None for v in line["values"])][:_DRAWN]
    for number, line in enumerate(drawn):
        figures[f"signal{number}"] = _signal(line, at)
    rows = "".join(_row(line) for line in ranked)
    head = "<tr><th>feature</th><th>signal</th><th>last</th><th>bound</th><th>by chance</th><th>verdict</th><th>alarms</th></tr>"
    body = f"<h2>Every signal</h2><table>{head}{rows}</table>{''.join(_span(s) for s in view.get('span', ()))}"
    return figures_page(f"{view['model']}: {len(windows)} windows", body, figures)


def _calm(line: Json) -> tuple[bool, int, bool, float, str, str]:
    last = line["last"]
    near = (last["value"] or 0.0) / last["bound"] if last["bound"] else 0.0
    return (last["verdict"] != "alarm", -line["alarms"], last["verdict"] == "calendar", -near, line["feature"], line["signal"])


def _performance(windows: Sequence[Json]) -> Json:
    told = [(w["end"], w["performance"]) for w in windows if w["performance"]]
    at = [end for end, _ in told]
    lines = [
        {"x": at, "y": [p[name] for _, p in told], "name": called, "mode": "lines+markers"}
        for name, called in (("value", "by labels"), ("estimate", "estimated"), ("bound", "bound"))
        if any(p[name] is not None for _, p in told)
    ]
    return {"data": lines, "layout": {"title": {"text": f"{told[-1][1]['metric']} by window"}, "height": 340}}


def _signal(line: Json, at: Sequence[str]) -> Json:
    bound = line["last"]["bound"]
    data = [{"x": list(at), "y": line["values"], "name": line["signal"], "mode": "lines+markers"}]
    if bound is not None:
        data.append({"x": list(at), "y": [bound] * len(at), "name": "bound", "mode": "lines", "line": {"dash": "dot"}})
    title = f"{line['signal']} of {line['feature'] or 'the model'}"
    return {"data": data, "layout": {"title": {"text": escape(title)}, "height": 240, "showlegend": False}}


def _row(line: Json) -> str:
    last = line["last"]
    cells = (line["feature"], line["signal"], *map(_figure, (last["value"], last["bound"], last["p_value"])), judged(last))
    return f"<tr>{''.join(f'<td>{escape(str(c))}</td>' for c in cells)}<td>{line['alarms'] or ''}</td></tr>"


def _span(span: Json) -> str:
    loud = [s for s in span["signals"] if s["verdict"] == "alarm"]
    said = [f"{s['signal']} of {s['feature']}: {_figure(s['value'])}, bound {_figure(s['bound'])}" for s in loud]
    named = "".join(f"<li>{escape(words)}</li>" for words in said)
    head = f"{span['start']} to {span['end']} as one: {span['rows']:,} rows, held against version {span['version']}"
    return f"<h2>{escape(head)}</h2><ul>{named or '<li>nothing alarms</li>'}</ul>"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
