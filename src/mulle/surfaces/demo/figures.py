"""The report's figures as Plotly figures in plain JSON; colours are names (``@mulle``) that the page fills in by theme."""

from __future__ import annotations

from collections.abc import Sequence

from mulle.core.records.base import Json

__all__ = ["alerts_figure", "daily_figure", "months_figure", "served_figure"]

_AXIS: Json = {"gridcolor": "@grid", "linecolor": "@grid", "zeroline": False, "tickfont": {"size": 12}}
_LAYOUT: Json = {
    "margin": {"l": 52, "r": 16, "t": 34, "b": 38},
    "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
    "hovermode": "x unified",
    "bargap": 0.3,
}
_OVER_TIME: Json = {**_LAYOUT, "margin": {**_LAYOUT["margin"], "l": 118}}
"""One margin for every figure over time, wide enough for the names of signals, so that dates stand below each other."""

_VERSIONS = ("@v1", "@v2", "@v3", "@v4", "@v5")
_LABELLED = 6
"""Days that a version must have answered most of, for its number to fit into its area."""


def months_figure(account: Json) -> Json:
    """MAE by month: the frozen first model beside Mulle's, with the values on the bars."""
    months = [m["month"] for m in account["by_month"]]

    def bars(name: str, key: str, colour: str) -> Json:
        values = [_rounded(m[key]) for m in account["by_month"]]
        text = ["" if v is None else f"{v:.1f}" for v in values]
        return {
            "type": "bar", "name": name, "x": months, "y": values, "text": text, "textposition": "outside",
            "cliponaxis": False, "constraintext": "none", "textangle": 0,
            "marker": {"color": colour}, "textfont": {"size": 11, "color": "@muted"}, "hovertemplate": "%{y:.2f} min",
        }  # fmt: skip

    traces = [bars("frozen first model", "frozen", "@frozen"), bars("Mulle", "mulle", "@mulle")]
    x = {**_AXIS, "type": "category", "showgrid": False, "range": [-0.5, max(len(months), 4) - 0.5]}
    return {"data": traces, "layout": {**_LAYOUT, "height": 330, "xaxis": x, "yaxis": _minutes(), "bargroupgap": 0.06}}


def daily_figure(account: Json) -> Json:
    """MAE by day as lines, with a vertical mark for each promotion, hold-back and drill."""
    days = _noons(account)

    def line(name: str, key: str, colour: str, width: float) -> Json:
        values = [_rounded(d[key]) for d in account["by_day"]]
        return {
            "type": "scatter", "mode": "lines", "name": name, "x": days, "y": values,
            "line": {"color": colour, "width": width}, "hovertemplate": "%{y:.2f} min",
        }  # fmt: skip

    top = max((d["frozen"] or 0 for d in account["by_day"]), default=1.0) * 1.06
    marks, shapes = _marks(account, top)
    traces = [line("frozen first model", "frozen", "@frozen", 1.4), line("Mulle", "mulle", "@mulle", 2.2), *marks]
    layout = {
        **_OVER_TIME,
        "height": 370,
        "xaxis": _dates(account),
        "yaxis": {**_minutes(), "range": [0, top * 1.03]},
        "shapes": shapes,
    }
    return {"data": traces, "layout": layout}


def served_figure(account: Json) -> Json:
    """Which version answered: each day's rows by version, in percent, as the prediction log has them."""
    days = _noons(account)
    versions = sorted({int(v) for d in account["by_day"] for v in d["versions"]})
    totals = [sum(d["versions"].values()) for d in account["by_day"]]
    traces = []
    for version in versions:
        counts = [d["versions"].get(str(version), 0) for d in account["by_day"]]
        shares = [round(100 * c / t, 2) if t else 0 for c, t in zip(counts, totals, strict=True)]
        traces.append(
            {
                "type": "bar", "name": f"version {version}", "x": days, "y": [s or None for s in shares],
                "marker": {"color": _version_colour(version), "line": {"width": 0}},
                "hovertemplate": "%{y:.1f}%",
            }
        )  # fmt: skip
    y = {**_AXIS, "ticksuffix": "%", "range": [0, 100], "showgrid": False}
    layout = {
        **_OVER_TIME,
        "height": 210,
        "barmode": "stack",
        "bargap": 0,
        "showlegend": False,
        "xaxis": _dates(account),
        "yaxis": y,
    }
    margin = {**_OVER_TIME["margin"], "t": 10}
    return {"data": traces, "layout": {**layout, "margin": margin, "annotations": _version_labels(account)}}


def _version_colour(version: int) -> str:
    # The first version is the frozen model, so it has that one's colour and nothing else has.
    return "@frozen" if version == 1 else _VERSIONS[(version - 2) % len(_VERSIONS)]


def _version_labels(account: Json) -> list[Json]:
    led: dict[str, list[str]] = {}
    for row, noon in zip(account["by_day"], _noons(account), strict=True):
        leader = max(row["versions"], key=lambda v: row["versions"][v])
        led.setdefault(leader, []).append(noon)
    font = {"color": "@card", "size": 12}
    return [
        {"x": days[len(days) // 2], "y": 50, "text": f"<b>{version}</b>", "showarrow": False, "font": font}
        for version, days in led.items()
        if len(days) >= _LABELLED
    ]


def alerts_figure(account: Json) -> Json:
    """Alerts over time: one row per signal, a bar from opening to closing."""
    rows: dict[str, list[Json]] = {}
    for alert in account["alerts"]:
        rows.setdefault(f"{alert['signal']} {alert['feature']}".strip(), []).append(alert)
    names = sorted(rows, key=lambda n: len(rows[n]))
    x: list[str | None] = []
    y: list[str | None] = []
    text: list[str | None] = []
    for name in names:
        for alert in rows[name]:
            ends = alert["closed_at"] or account["to"]
            x += [_short(alert["created_at"]), _short(ends), None]
            y += [name, name, None]
            text += [_alert_words(alert)] * 2 + [None]
    trace = {
        "type": "scatter", "mode": "lines+markers", "x": x, "y": y, "text": text, "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": "@alert", "width": 7}, "marker": {"color": "@alert", "size": 7, "symbol": "square"},
        "showlegend": False,
    }  # fmt: skip
    layout = {
        **_OVER_TIME, "height": 70 + 24 * max(1, len(names)), "hovermode": "closest", "xaxis": _dates(account),
        "yaxis": {**_AXIS, "type": "category", "range": [-0.6, len(names) - 0.4], "categoryarray": names},
        "margin": {**_OVER_TIME["margin"], "t": 10},
    }  # fmt: skip
    return {"data": [trace], "layout": layout}


def _marks(account: Json, top: float) -> tuple[list[Json], list[Json]]:
    promoted = [
        (d["effective_at"], f"version {d['to_version']} promoted") for d in account["deployments"] if d["action"] == "promote"
    ]
    held = [(h["at"], f"{h['what']} held back by {', '.join(h['by'])}") for h in account["held_back"]]
    drills = [(d["at"], f"drill: {d['kind'].replace('_', ' ')}") for d in account["drills"]]
    kinds: Sequence[tuple[str, str, str, str, list[tuple[str, str]]]] = (
        ("promotion", "@promote", "triangle-up", "solid", promoted),
        ("held back", "@held", "x", "dot", held),
        ("drill", "@drill", "diamond", "dash", drills),
    )
    traces, shapes = [], []
    for place, (name, colour, symbol, dash, found) in enumerate(kinds):
        if not found:
            continue
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "x": [_short(at) for at, _ in found],
                "y": [top * (1 - 0.045 * place)] * len(found), "text": [t for _, t in found],
                "hovertemplate": "%{text}<extra></extra>", "marker": {"color": colour, "symbol": symbol, "size": 9},
            }
        )  # fmt: skip
        shapes += [
            {
                "type": "line", "x0": _short(at), "x1": _short(at), "yref": "paper", "y0": 0, "y1": 1, "layer": "below",
                "line": {"color": colour, "width": 1, "dash": dash}, "opacity": 0.55,
            }
            for at, _ in found
        ]  # fmt: skip
    return traces, shapes


def _alert_words(alert: Json) -> str:
    value, bound = alert["evidence"].get("value"), alert["evidence"].get("bound")
    told = f"{value:.3g} against {bound:.3g}" if isinstance(value, (int, float)) and isinstance(bound, (int, float)) else ""
    closed = f", closed {_short(alert['closed_at'])}" if alert["closed_at"] else ", open"
    return f"{alert['signal']} {alert['feature']} {told}<br>opened {_short(alert['created_at'])}{closed}"


def _noons(account: Json) -> list[str]:
    # A day's value stands in the middle of its day.
    return [f"{d['day']} 12:00" for d in account["by_day"]]


def _dates(account: Json) -> Json:
    # One range for every figure over time, so that a mark in one is found below it in the next.
    return {
        **_AXIS,
        "type": "date",
        "showgrid": False,
        "range": [_short(account["from"]), _short(account["to"])],
        "hoverformat": "%-d %B",
    }


def _minutes() -> Json:
    return {**_AXIS, "title": {"text": "MAE, minutes", "font": {"size": 12}}, "rangemode": "tozero"}


def _short(text: object) -> str:
    return str(text)[:16].replace("T", " ").rstrip("Z")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
