"""Figures as data, in Plotly's own form: of a search and of what a model's answers rest on; whoever shows them draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mulle.core.records.base import Json

__all__ = ["inspection_figures", "search_figures"]

_LEAST_LINES = 3
"""Fewer done trials of a candidate make no parallel coordinates."""

_MOST = 20


def search_figures(trials: Sequence[Json], importance: Mapping[str, Mapping[str, float]]) -> dict[str, Json]:
    """Draw a search: its history, parallel coordinates of each candidate, and how much each parameter explains.

    Parameters
    ----------
    trials : sequence of dict
        With ``number``, ``candidate``, ``params`` and ``score``, as a run is shown.
    importance : mapping
        Candidate to parameter to share, as `lifecycle.training.importance` gives it.

    Returns
    -------
    dict
        Name to ``data`` and ``layout``.
    """
    figures = {"history": _history(trials)}
    for kind in dict.fromkeys(t["candidate"] for t in trials):
        if lines := _lines(kind, [t for t in trials if t["candidate"] == kind and t["score"] is not None]):
            figures[f"lines-{len(figures)}"] = lines
    return figures | {f"share-{i}": _shares(kind, shares) for i, (kind, shares) in enumerate(importance.items())}


def inspection_figures(inspection: Json | None) -> dict[str, Json]:
    """Draw importance, partial dependence and the learning curve.

    Parameters
    ----------
    inspection : dict or None
        An `Inspection` as JSON.

    Returns
    -------
    dict
        Name to ``data`` and ``layout``; empty without an inspection.
    """
    if not inspection:
        return {}
    figures = {}
    if inspection["importance"]:
        figures["importance"] = _importance(inspection["importance"][:_MOST], inspection["metric"])
    figures |= {f"dependence-{i}": _dependence(one, inspection["metric"]) for i, one in enumerate(inspection["dependence"])}
    if len(inspection["curve"]) > 1:
        figures["learning-curve"] = _curve(inspection["curve"], inspection["metric"])
    return figures


def _importance(shown: Sequence[Json], metric: str) -> Json:
    rows = shown[::-1]
    spread = {"type": "data", "array": [i["high"] - i["worse"] for i in rows]}
    bars = {"type": "bar", "orientation": "h", "x": [i["worse"] for i in rows], "y": [i["column"] for i in rows]}
    title = {"text": f"Importance: {metric} grows by so much when a feature is shuffled"}
    layout = {"title": title, "height": 160 + 24 * len(rows), "yaxis": {"automargin": True}}
    return {"data": [{**bars, "error_x": spread}], "layout": layout}


def _dependence(one: Json, metric: str) -> Json:
    number = one["kind"] == "number"
    at = [float(a) for a in one["at"]] if number else one["at"]
    drawn = {"type": "bar"} if one["kind"] == "category" else {"type": "scatter", "mode": "lines+markers"}
    data = [{**drawn, "x": at, "y": list(values), "name": name} for name, values in one["answers"].items()]
    axis = {"title": {"text": one["column"]}, **({"type": "category"} if one["kind"] == "category" else {})}
    names = list(one["answers"])
    said = (names[0] if metric == "mae" else f"probability of {names[0]}") if len(names) == 1 else "probability"
    layout = {"title": {"text": f"Mean answer by {one['column']}"}, "xaxis": axis, "yaxis": {"title": {"text": said}}}
    return {"data": data, "layout": layout}


def _curve(points: Sequence[Json], metric: str) -> Json:
    rows = [p["rows"] for p in points]
    spread = {"type": "data", "array": [p["high"] - p["holdout"] for p in points]}
    data: list[Json] = [
        {"x": rows, "y": [p["holdout"] for p in points], "name": "holdout", "error_y": spread},
        {"x": rows, "y": [p["train"] for p in points], "name": "the rows fitted on"},
    ]
    ticks = {"tickvals": rows, "ticktext": [f"{n:,}" for n in rows]}
    axes = {"xaxis": {"title": {"text": "rows"}, "type": "log", **ticks}, "yaxis": {"title": {"text": metric}}}
    drawn = [{**line, "type": "scatter", "mode": "lines+markers"} for line in data]
    return {"data": drawn, "layout": {"title": {"text": "Learning curve"}, **axes}}


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
