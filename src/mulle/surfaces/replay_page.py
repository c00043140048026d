"""A replay's policies side by side as one page that needs no network: the table, score over time, and what each run cost."""

from __future__ import annotations

from html import escape

from mulle.core.records.base import Json
from mulle.loop.replay.compare import FIGURES, by_span
from mulle.surfaces.figures_page import figures_page
from mulle.surfaces.words import moment

__all__ = ["replay_page"]

_SHORT = 62
"""A replay of no more days is drawn by day."""


def replay_page(view: Json) -> str:
    """Render the page.

    Parameters
    ----------
    view : dict
        As `surfaces.replays.play` gives it.

    Returns
    -------
    str
        HTML; plotly.js is inside.
    """
    metric, days = view["metric"], by_span(view["accounts"], "day")
    span, rows = ("day", days) if len(days) <= _SHORT else ("month", view["by_month"])
    figures = {"score": _lines(rows, span, list(view["policies"]), metric), "cost": _cost(view["policies"], metric)}
    title = f"Replay of {view['model']}, {moment(view['from'])} to {moment(view['to'])}"
    return figures_page(title, _table(view["policies"], metric) + _history(view["accounts"]), figures)


def _lines(rows: list[Json], span: str, names: list[str], metric: str) -> Json:
    x = [row[span] for row in rows]
    data = [
        {"type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": [row.get(name) for row in rows]} for name in names
    ]
    return {"data": data, "layout": {"title": f"{metric} by {span}, lower is better", "hovermode": "x unified"}}


def _cost(policies: Json, metric: str) -> Json:
    data = [
        {
            "type": "scatter", "mode": "markers+text", "name": name, "x": [told["compute_seconds"]], "y": [told["score"]],
            "text": [f"{name}, {told['retrainings']} retrainings"], "textposition": "top center", "marker": {"size": 12},
        }
        for name, told in policies.items()
    ]  # fmt: skip
    layout = {"title": f"{metric} and what it cost", "xaxis": {"title": "compute seconds"}, "yaxis": {"title": metric}}
    return {"data": data, "layout": {**layout, "showlegend": False}}


def _table(policies: Json, metric: str) -> str:
    words = {**{name: name.replace("_", " ") for name in FIGURES}, "score": metric}
    head = "".join(f"<th>{escape(word)}</th>" for word in words.values())
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{_figure(told[word])}</td>' for word in words)}</tr>"
        for name, told in policies.items()
    )
    return f"<h2>Policies</h2><table><tr><th>policy</th>{head}</tr>{rows}</table>"


def _history(accounts: Json) -> str:
    return "".join(
        f"<h2>Runs of {escape(name)}</h2><table><tr><th>when</th><th>why</th><th>ended</th><th>version</th><th>seconds</th></tr>"
        + "".join(
            f"<tr><td>{moment(run['created_at'])}</td><td>{escape('; '.join(c['why'] for c in run['causes']))}</td>"
            f"<td>{escape(run['state'])}</td><td>{run['model_version'] or ''}</td><td>{run['seconds']:g}</td></tr>"
            for run in account["runs"]
        )
        + "</table>"
        for name, account in accounts.items()
    )


def _figure(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else escape(str(value))
