"""The demo's report: one page that needs no network, made of small pieces; every figure has its numbers in a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from string import Template

from mulle.core.records.base import Json
from mulle.surfaces.demo.account import alert_counts, day, number, scored_span, verdict, whys
from mulle.surfaces.demo.figures import alerts_figure, daily_figure, months_figure, served_figure
from mulle.surfaces.words import routes_in_words

__all__ = ["inlined_plotly", "report"]

_MARKS = {"pass": "pass", "fail": "fail", "not_enough_evidence": "fail"}


def inlined_plotly() -> str:
    """Return plotly.js as it lies in the installed package; reading it spares importing plotly."""
    return (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def report(account: Json, plotly: str) -> str:
    """Render the page.

    Parameters
    ----------
    account : dict
        What ``demo.json`` holds.
    plotly : str
        The source of plotly.js, put into the page.

    Returns
    -------
    str
        HTML.
    """
    page = files("mulle.surfaces.demo") / "page"
    figures = {
        "months": months_figure(account),
        "daily": daily_figure(account),
        "served": served_figure(account),
        "alerts": alerts_figure(account),
    }
    body = [_head(account), _cards(account), *_plots(account), *_tables(account), _foot(account)]
    return Template((page / "page.html").read_text(encoding="utf-8")).substitute(
        title=f"{escape(str(account['model']))}: a year with Mulle",
        style=(page / "page.css").read_text(encoding="utf-8"),
        body="\n".join(body),
        plotly=plotly,
        figures=json.dumps(figures).replace("</", "<\\/"),
        script=(page / "page.js").read_text(encoding="utf-8"),
    )


def _head(account: Json) -> str:
    told = (
        f"One declaration, played from {day(account['from'])} to {day(account['to'])} by the loop itself against the real "
        "inference server: flights ask for a prediction when they are due to leave, and the true air time arrives as a label "
        "when they have landed. The frozen model is the first one, with the same features and the same rows, never trained again."
    )
    return f'<header><h1>Air time of flights from New York, 2013</h1><p class="lead">{escape(told)}</p></header>'


def _cards(account: Json) -> str:
    lower, failed, held = account["improvement"], account["failed_requests"], account["held_back"]
    machine = account["machine"]
    change = (
        "no comparison" if lower is None else f"{abs(lower):.1%} {'lower' if lower >= 0 else 'higher'} than the frozen model's"
    )
    figure = (
        f'<span class="old">{number(account["mae_frozen"])} &rarr;</span> <span class="new">{number(account["mae_mulle"])}</span>'
    )
    whats = ", ".join(_counted(sum(h["what"] == w for h in held), w) for w in dict.fromkeys(h["what"] for h in held))
    cards = [
        (f"MAE in minutes, {scored_span(account)}", figure, change),
        ("Requests answered", f"{account['requests']:,}", f"for {account['rows']:,} flights"),
        ("Requests failed", f'<span class="{"bad" if failed else "good"}">{failed:,}</span>', "counted by the client"),
        ("Promotions", str(account["promotions"]), f"by the loop; {len(account['runs'])} runs"),
        ("Held back", str(len(held)), whats or "nothing"),
    ]
    parts = ("label", "figure", "detail")
    made = ["".join(f'<div class="{p}">{text}</div>' for p, text in zip(parts, card, strict=True)) for card in cards]
    shown = "".join(f'<div class="card">{card}</div>' for card in made)
    place = f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}"
    told = f"Played over {account['connections']} connections in {account['seconds']:.0f} s on {place}."
    return f'<div class="cards">{shown}</div><p class="note played">{escape(told)}</p>'


def _counted(count: int, what: str) -> str:
    plural = {"batch": "batches", "canary": "canaries"}.get(what, f"{what}s")
    return f"{count} {what if count == 1 else plural}"


def _plots(account: Json) -> list[str]:
    months = [
        (m["month"], f"{m['rows']:,}", number(m["frozen"]), number(m["mulle"]), _change(m["frozen"], m["mulle"]))
        for m in account["by_month"]
    ]
    columns = ("month", "labelled flights", "frozen", "Mulle", "change")
    drills = "A bad batch and a challenger trained on shuffled targets are thrown in on purpose (drill)."
    served = "Each day's flights by the version that answered them, as the prediction log has it; version 1 is the frozen model."
    counts = [(name, str(count), str(opened), first) for name, count, opened, first in alert_counts(account["alerts"])]
    counted = _table(("signal", "alerts", "still open", "first"), counts, numbers=("alerts", "still open"))
    return [
        _section(
            "Error by month",
            "Mean absolute error; lower is better.",
            _plot("months") + _table(columns, months, numbers=columns[1:]),
        ),
        _section("Error by day, and what the loop did", drills, _plot("daily")),
        _section("What answered", served, _plot("served")),
        _section(f"Alerts ({len(account['alerts'])})", "From opening to closing, by signal.", _plot("alerts") + counted),
    ]


def _tables(account: Json) -> list[str]:
    held_note = "What did not reach the data or production, and the check, gate or comparison that stopped it."
    runs_note = "Every attempt at a better version: its cause, each gate's verdict and what became of it."
    held = [(day(h["at"]), h["what"], ", ".join(h["by"]) or "-", h["why"]) for h in account["held_back"]]
    return [
        _section(f"Held back ({len(held)})", held_note, _table(("when", "what", "by", "what led to it"), held, whens=("when",))),
        _section(f"Runs ({len(account['runs'])})", runs_note, _runs(account["runs"])),
        _deployments(account),
        _alerts(account),
    ]


def _deployments(account: Json) -> str:
    note = "Every move of the pointer. Nothing is ever edited, so what was in production at any time can be told."
    rows = [
        (day(d["effective_at"]), d["action"].replace("_", " "), routes_in_words(d), d["by"], whys(d))
        for d in account["deployments"]
    ]
    columns = ("in force from", "action", "answers", "by", "cause")
    return _section(f"Deployments ({len(rows)})", note, _table(columns, rows, whens=columns[:1]))


def _alerts(account: Json) -> str:
    rows = [
        (day(a["created_at"]), day(a["closed_at"]) if a["closed_at"] else "open", f"{a['signal']} {a['feature']}".strip(),
         number(a["evidence"].get("value"), 3), number(a["evidence"].get("bound"), 3))
        for a in account["alerts"]
    ]  # fmt: skip
    columns = ("opened", "closed", "signal", "value", "bound")
    return _section("Every alert", "", _table(columns, rows, numbers=columns[3:], whens=columns[:2]))


def _plot(name: str) -> str:
    return f'<div id="{name}" class="plot"></div>'


def _runs(runs: Iterable[Json]) -> str:
    rows = []
    for run in runs:
        gates = "".join(
            f'<li class="{_MARKS.get(g["verdict"], "")}"><code>{escape(g["gate"])}</code> {escape(g["reason"])}</li>'
            for g in run["gates"]
        )
        mark = "good" if run["model_version"] else "bad"
        rows.append(
            f'<tr><td class="when">{day(run["created_at"])}</td><td>{escape(whys(run))}</td>'
            f'<td><span class="{mark}">{escape(_short_verdict(run))}</span><br><code class="dim">{escape(run["id"])}</code></td>'
            f'<td><ul class="gates">{gates}</ul></td><td class="number">{number(run["seconds"], 1)}</td></tr>'
        )
    head = "<tr><th>cutoff</th><th>cause</th><th>verdict</th><th>gates</th><th class='number'>seconds</th></tr>"
    return f'<div class="wide"><table class="runs"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _short_verdict(run: Json) -> str:
    # The gates stand beside it with their reasons, so the state says enough unless no gate was reached.
    return str(run["state"]) if run["gates"] and not run["model_version"] else verdict(run)


def _foot(account: Json) -> str:
    return (
        f"<footer>Written by <code>mulle demo</code> on {day(account['created_at'])} UTC. The same numbers are in "
        "<code>demo.json</code>; each can be recomputed from the lake and the database in <code>.mulle</code>. "
        "Look closer with <code>mulle runs show ID</code> and <code>mulle explain ID</code>.</footer>"
    )


def _section(title: str, note: str, inner: str) -> str:
    told = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(title)}</h2>{told}{inner}</section>"


def _table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = (), whens: Sequence[str] = ()
) -> str:
    kinds = ["number" if c in numbers else "when" if c in whens else "" for c in columns]
    head = "".join(f'<th class="{k}">{escape(c)}</th>' for c, k in zip(columns, kinds, strict=True))
    body = [
        "<tr>" + "".join(f'<td class="{k}">{escape(str(v))}</td>' for v, k in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    ]
    if not body:
        return '<p class="dim">none</p>'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _change(frozen: float | None, mulle: float | None) -> str:
    return "-" if not frozen or mulle is None else f"{mulle / frozen - 1:+.0%}".replace("-", "−")
