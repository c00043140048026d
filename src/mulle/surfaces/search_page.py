"""A run's search as one page that needs no network: history, parameters of each candidate, and what made the difference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from mulle.core.records.base import Json

__all__ = ["search_page"]

_LEAST_LINES = 3
"""Fewer done trials of a candidate make no parallel coordinates."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}}
table{{border-collapse:collapse}}td,th{{padding:.2rem .8rem;border-bottom:1px solid #ddd;text-align:left}}</style>
<script>{plotly}</script></head><body><h1>{title}</h1>{body}
<script>for (const [id, f] of Object.entries({figures})) Plotly.newPlot(id, f.data, f.layout, {{displayModeBar: false}})</script>
</body></html>
"""


def search_page(run: Json, importance: Mapping[str, Mapping[str, float]]) -> str:
    """Render the page.

    Parameters
    ----------
    run : dict
        With ``id``, ``model`` and ``trials``, as a run is shown.
    importance : mapping
        Candidate to parameter to share, as `lifecycle.training.importance` gives it.

    Returns
    -------
    str
        HTML; plotly.js is inside.
    """
    trials: Sequence[Json] = run["trials"]
    figures = {"history": _history(trials)}
    for kind in dict.fromkeys(t["candidate"] for t in trials):
        if lines := _lines(kind, [t for t in trials if t["candidate"] == kind and t["score"] is not None]):
            figures[f"lines-{len(figures)}"] = lines
    figures |= {f"share-{i}": _shares(kind, shares) for i, (kind, shares) in enumerate(importance.items())}
    plots = "".join(f'<div id="{name}"></div>' for name in figures)
    return _PAGE.format(
        title=escape(f"Search of {run['model']}, run {run['id']}"),
        plotly=(files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8"),
        body=plots + _failures(trials),
        figures=json.dumps(figures).replace("</", "<\\/"),
    )


def _history(trials: Sequence[Json]) -> Json:
    done = [t for t in trials if t["score"] is not None]
    data: list[Json] = []
    for kind in dict.fromkeys(t["candidate"] for t in done):
        own = [t for t in done if t["candidate"] == kind]
        points = {"x": [t["number"] for t in own], "y": [t["score"] for t in own]}
        data.append({**points, "mode": "markers", "name": kind, "type": "scatter"})
    best = [min(t["score"] for t in done[: i + 1]) for i in range(len(done))]
    line = {"x": [t["number"] for t in done], "y": best, "mode": "lines", "line": {"shape": "hv"}, "name": "best so far"}
    layout = {"title": {"text": "Score by trial (lower is better)"}, "xaxis": {"title": {"text": "trial"}}}
    return {"data": [*data, {**line, "type": "scatter"}], "layout": layout}


def _lines(kind: str, done: Sequence[Json]) -> Json | None:
    names = sorted(set.intersection(*(set(t["params"]) for t in done))) if len(done) >= _LEAST_LINES else []
    axes = [axis for name in names if (axis := _axis(name, [t["params"][name] for t in done]))]
    if not axes:
        return None
    scores = [t["score"] for t in done]
    data = {
        "type": "parcoords",
        "line": {"color": scores, "colorscale": "Viridis", "showscale": True},
        "dimensions": [*axes, {"label": "score", "values": scores}],
    }
    return {"data": [data], "layout": {"title": {"text": f"{kind}: parameters and score"}}}


def _axis(name: str, values: Sequence[Any]) -> Json | None:
    distinct = list(dict.fromkeys(map(str, values)))
    if len(distinct) < 2:
        return None
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values):
        return {"label": name, "values": list(values)}
    return {
        "label": name,
        "values": [distinct.index(str(v)) for v in values],
        "tickvals": list(range(len(distinct))),
        "ticktext": distinct,
    }


def _shares(kind: str, shares: Mapping[str, float]) -> Json:
    names = list(shares)[::-1]
    data = {"type": "bar", "orientation": "h", "x": [shares[n] for n in names], "y": names}
    return {"data": [data], "layout": {"title": {"text": f"{kind}: share of the scores' spread that a parameter explains"}}}


def _failures(trials: Sequence[Json]) -> str:
    lost = [t for t in trials if t["score"] is None]
    if not lost:
        return ""
    rows = "".join(
        f"<tr><td>{t['number']}</td><td>{escape(t['candidate'])}</td><td>{escape(t.get('failure') or t['state'])}</td>"
        f"<td>{escape(t.get('reason', ''))}</td></tr>"
        for t in lost
    )
    return f"<h2>Trials without a score</h2><table><tr><th>trial</th><th>candidate</th><th>why</th><th></th></tr>{rows}</table>"
