"""The page's figures as Plotly figures in plain JSON; colours are names (``@mulle``) that the page fills in by theme.

A figure shows one table, or two versions of it: the earlier in grey, the later in Mulle's colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mulle.core.clock import rfc3339
from mulle.core.records.base import Json
from mulle.core.records.exploration import CheckPoint, Exploration, Overlay, Trend
from mulle.surfaces.explore.parts import short

__all__ = [
    "associations_figure", "checks_figure", "holes_figure", "information_figure", "missing_figure", "number_figure",
    "overlay_figure", "rows_figure",
]  # fmt: skip

_AXIS: Json = {"gridcolor": "@grid", "linecolor": "@grid", "zeroline": False, "tickfont": {"size": 12}}
_LAYOUT: Json = {
    "margin": {"l": 56, "r": 16, "t": 30, "b": 36},
    "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    "hovermode": "x unified",
    "bargap": 0.25,
}
_SMALL: Json = {**_LAYOUT, "margin": {"l": 48, "r": 8, "t": 6, "b": 42}, "height": 200, "showlegend": False}
_LINES = ("@v1", "@v2", "@v3", "@v4", "@v5")
_LABEL = 28
_ROW = 24


def checks_figure(points: Sequence[CheckPoint], names: Sequence[str]) -> Json:
    """Failed rows by check, a point per publish, refusal and audit."""
    hover = [f"{_text(p.label)}, {rfc3339(p.at)[:16].replace('T', ' ')}, {p.rows:,} rows" for p in points]
    traces: list[Json] = [
        {
            "type": "scatter", "mode": "lines+markers", "name": _text(name), "x": list(range(len(points))), "text": hover,
            "y": [p.failed.get(name) for p in points], "hovertemplate": "%{y:,} failed, %{text}",
            "line": {"color": _LINES[at % len(_LINES)], "width": 1.8, "dash": "solid" if at < len(_LINES) else "dot"},
            "marker": {
                "size": [11 if p.kind == "quarantine" else 7 for p in points],
                "symbol": ["x" if p.kind == "quarantine" else "circle-open" if p.kind == "audit" else "circle" for p in points],
            },
        }
        for at, name in enumerate(names)
    ]  # fmt: skip
    every = max(1, -(-len(points) // 24))
    ticks = list(range(0, len(points), every))
    x = {
        **_AXIS,
        "showgrid": False,
        "tickvals": ticks,
        "ticktext": [_text(points[at].label) for at in ticks],
        "range": [-0.5, len(points) - 0.5],
    }
    y = {**_AXIS, "title": {"text": "failed rows", "font": {"size": 12}}, "rangemode": "tozero"}
    return {"data": traces, "layout": {**_LAYOUT, "height": 320, "xaxis": x, "yaxis": y}}


def missing_figure(sides: Sequence[Exploration], columns: Sequence[str]) -> Json:
    """Missing share by column."""
    shares = [{p.name: p.missing / p.rows if p.rows else 0.0 for p in side.profiles} for side in sides]
    bars = [[share.get(c) for c in columns] for share in shares]
    return _bars(columns, bars, [s.name for s in sides], {"tickformat": ",.3~%", "rangemode": "tozero"}, "%{x:.3~%} missing")


def information_figure(sides: Sequence[Exploration], columns: Sequence[str]) -> Json:
    """Mutual information with the target by column, and what chance gives."""
    found = [{r.column: r for r in side.relations} for side in sides]
    bars = [[r.information if (r := told.get(c)) else None for c in columns] for told in found]
    axis = {"title": {"text": "mutual information, nats", "font": {"size": 12}}, "rangemode": "tozero"}
    figure = _bars(columns, bars, [s.name for s in sides], axis, "%{x:.3f} nats")
    floors = [max((r.floor or 0.0 for told in found if (r := told.get(c))), default=None) for c in columns]
    figure["data"].append(
        {
            "type": "scatter", "mode": "markers", "name": "target shuffled", "x": floors, "y": list(range(len(columns))),
            "marker": {"symbol": "line-ns-open", "size": 14, "color": "@held", "line": {"width": 2}},
            "hovertemplate": "%{x:.3f} nats with the target shuffled<extra></extra>",
        }
    )  # fmt: skip
    figure["layout"] |= {"showlegend": True, "margin": _LAYOUT["margin"], "height": figure["layout"]["height"] + 30}
    return figure


def associations_figure(side: Exploration) -> Json:
    """Cramér's V of every pair as a map; Pearson's correlation on hover."""
    names = [p.name for p in side.profiles if p.name not in side.dropped]
    at = {name: place for place, name in enumerate(names)}
    values: list[list[float | None]] = [[None] * len(names) for _ in names]
    texts = [[""] * len(names) for _ in names]
    for pair in side.associations:
        i, j = at[pair.left], at[pair.right]
        pearson = "" if pair.pearson is None else f"<br>Pearson {pair.pearson:+.2f}"
        for a, b in ((i, j), (j, i)):
            values[a][b] = round(pair.cramer_v, 3)
            texts[a][b] = f"{_text(names[a])}, {_text(names[b])}<br>Cramér's V {pair.cramer_v:.2f}{pearson}"
    trace = {
        "type": "heatmap", "z": values, "text": texts, "hovertemplate": "%{text}<extra></extra>", "zmin": 0, "zmax": 1,
        "colorscale": [[0, "@card"], [1, "@mulle"]], "xgap": 1, "ygap": 1, "hoverongaps": False,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "title": {"text": "V", "side": "top"}},
    }  # fmt: skip
    labels = {**_AXIS, "showgrid": False, "tickvals": list(range(len(names))), "ticktext": [_text(n) for n in names]}
    layout = {
        **_LAYOUT, "hovermode": "closest", "height": 150 + 22 * len(names),
        "xaxis": {**labels, "tickangle": -45, "automargin": True},
        "yaxis": {**labels, "autorange": "reversed", "automargin": True},
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def rows_figure(trends: Mapping[str, Trend]) -> Json:
    """Rows by period, one colour per table."""
    traces = [
        {
            "type": "bar", "name": f"{_text(name)}, rows in {found.every}", "x": _instants(found), "y": list(found.rows),
            "marker": {"color": colour}, "hovertemplate": "%{y:,} rows",
        }
        for (name, found), colour in zip(trends.items(), _colours(len(trends)), strict=True)
    ]  # fmt: skip
    shown = {"xaxis": {**_AXIS, "type": "date", "showgrid": False}, "yaxis": {**_AXIS, "rangemode": "tozero"}}
    return {"data": traces, "layout": {**_LAYOUT, "height": 240, "showlegend": len(traces) > 1, **shown}}


def holes_figure(found: Trend) -> Json:
    """Missing share by column and period as a map."""
    names = list(found.missing)
    trace = {
        "type": "heatmap", "x": _instants(found), "y": list(range(len(names))), "z": [found.missing[n] for n in names],
        "zmin": 0, "colorscale": [[0, "@card"], [1, "@held"]], "xgap": 1, "ygap": 1,
        "colorbar": {"thickness": 10, "tickformat": ",.2~%", "outlinewidth": 0},
        "hovertemplate": "%{z:.2~%} missing in the period from %{x}<extra></extra>",
    }  # fmt: skip
    y = {
        **_AXIS,
        "showgrid": False,
        "tickvals": list(range(len(names))),
        "ticktext": [_text(n) for n in names],
        "automargin": True,
    }
    layout = {**_LAYOUT, "hovermode": "closest", "height": 90 + _ROW * len(names), "yaxis": {**y, "autorange": "reversed"}}
    return {"data": [trace], "layout": {**layout, "xaxis": {**_AXIS, "type": "date", "showgrid": False}}}


def number_figure(trends: Mapping[str, Trend], column: str) -> Json:
    """A number over time: median, mean, and the span from the first to the last decile of the latest table."""
    colours = _colours(len(trends))
    latest, traces = list(trends)[-1], []
    for (name, found), colour in zip(trends.items(), colours, strict=True):
        lines, x = found.numbers.get(column), _instants(found)
        if lines is None:
            continue
        if name == latest:
            edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "hovertemplate": "%{y:,.4~g}"}
            traces += [
                {**edge, "name": "1st decile", "y": lines["0.1"]},
                {**edge, "name": "9th decile", "y": lines["0.9"], "fill": "tonexty", "fillcolor": "@band"},
            ]
        told = f", {_text(name)}" if len(trends) > 1 else ""
        line = {"type": "scatter", "mode": "lines+markers" if len(x) == 1 else "lines", "x": x, "hovertemplate": "%{y:,.4~g}"}
        traces += [
            {**line, "name": f"median{told}", "y": lines["0.5"], "line": {"color": colour, "width": 2}},
            {**line, "name": f"mean{told}", "y": lines["mean"], "line": {"color": colour, "width": 1.3, "dash": "dot"}},
        ]
    return {"data": traces, "layout": {**_SMALL, "xaxis": {**_AXIS, "type": "date", "showgrid": False}, "yaxis": dict(_AXIS)}}


def overlay_figure(overlay: Overlay, names: tuple[str, str]) -> Json:
    """One column's distribution in both versions: bars over each other for numbers and times, side by side for values."""
    counted = overlay.kind == "category"
    x = list(range(len(overlay.x))) if counted else list(overlay.x)
    labels = [_text(v) for v in overlay.x] if counted else []
    traces = [
        {
            "type": "bar", "name": _text(name), "x": x, "y": list(shares), "opacity": 1 if counted else 0.6, "text": labels,
            "textposition": "none", "marker": {"color": colour, "line": {"width": 0}},
            "hovertemplate": "%{text}: %{y:.3~%}" if counted else "%{y:.3~%}",
        }
        for name, shares, colour in zip(names, (overlay.before, overlay.after), _colours(2), strict=True)
    ]  # fmt: skip
    axis: Json = {**_AXIS, "showgrid": False, **({"type": "date"} if overlay.kind == "time" else {})}
    if counted:
        ticks = {"tickvals": x, "ticktext": [_text(v, 12) for v in overlay.x], "automargin": True}
        axis |= {**ticks, "tickangle": -45 if len(x) > 6 else 0, "tickfont": {"size": 10 if len(x) > 8 else 12}}
    layout = {**_SMALL, "barmode": "group" if counted else "overlay", "bargap": 0.2 if counted else 0, "xaxis": axis}
    if counted:
        layout["hovermode"] = "closest"
    return {"data": traces, "layout": {**layout, "yaxis": {**_AXIS, "tickformat": ",.2~%", "rangemode": "tozero"}}}


def _bars(columns: Sequence[str], bars: Sequence[Sequence[float | None]], names: Sequence[str], axis: Json, hover: str) -> Json:
    places = list(range(len(columns)))
    traces: list[Json] = [
        {
            "type": "bar", "orientation": "h", "name": _text(name), "y": places, "x": list(values),
            "marker": {"color": colour}, "hovertemplate": f"{hover}<extra></extra>",
        }
        for name, values, colour in zip(names, bars, _colours(len(bars)), strict=True)
    ]  # fmt: skip
    y = {
        **_AXIS,
        "showgrid": False,
        "tickvals": places,
        "ticktext": [_text(c) for c in columns],
        "autorange": "reversed",
        "automargin": True,
    }
    layout = {
        **_LAYOUT,
        "hovermode": "closest",
        "margin": {**_LAYOUT["margin"], "t": 30 if len(bars) > 1 else 8},
        "height": 70 + (_ROW if len(bars) == 1 else 34) * len(columns),
        "showlegend": len(bars) > 1,
    }
    return {"data": traces, "layout": {**layout, "xaxis": {**_AXIS, **axis}, "yaxis": y}}


def _colours(count: int) -> tuple[str, ...]:
    return ("@mulle",) if count == 1 else ("@frozen", "@mulle")


def _instants(found: Trend) -> list[str]:
    return [rfc3339(at).rstrip("Z") for at in found.periods]


def _text(value: object, longest: int = _LABEL) -> str:
    # Plotly reads a few tags in text, and the page takes what begins with @ for a colour; names are neither.
    return escape(short(value, longest), quote=False).replace("@", "&#64;") or "(no name)"
