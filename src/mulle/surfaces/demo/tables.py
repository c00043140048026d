"""The demo's account in the terminal: tables, then the headline, then what to try next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from mulle.core.records.base import Json
from mulle.surfaces.demo.account import alert_counts, day, number, scored_span, verdict, whys
from mulle.surfaces.words import routes_in_words

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["closing"]

_FIRST_ALERTS = 5


def closing(account: Json, folder: Path) -> list[RenderableType]:
    """Give everything that is printed at the end.

    Parameters
    ----------
    account : dict
        What ``demo.json`` holds.
    folder : Path
        The demo's project.
    """
    return [
        _runs(account),
        _deployments(account),
        *_alerts(account),
        _held_back(account),
        _months(account),
        *_headline(account),
        _next(account, folder),
    ]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()) -> RenderableType:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(value) if isinstance(value, str) else value for value in row))
    return table if table.row_count else Text(f"{title}: none", style="dim")


def _runs(account: Json) -> RenderableType:
    rows = [
        (day(r["created_at"]), whys(r), Text(verdict(r), style="green" if r["model_version"] else "red"), number(r["seconds"], 1))
        for r in account["runs"]
    ]
    return _table(f"Runs ({len(rows)})", ("cutoff", "cause", "verdict", "s"), rows, right=("s",))


def _deployments(account: Json) -> RenderableType:
    styles = {"promote": "bold green", "hold_back": "bold red", "canary": "magenta"}
    rows = [
        (
            day(d["effective_at"]),
            Text(d["action"].replace("_", " "), style=styles.get(d["action"], "")),
            routes_in_words(d),
            whys(d),
        )
        for d in account["deployments"]
    ]
    return _table(f"Deployments ({len(rows)})", ("from", "action", "answers", "cause"), rows)


def _alerts(account: Json) -> list[RenderableType]:
    alerts = account["alerts"]
    counted = [(name, str(count), str(opened), first) for name, count, opened, first in alert_counts(alerts)]
    first = [
        (day(a["created_at"]), f"{a['signal']} {a['feature']}".strip(), number(a["evidence"].get("value"), 3),
         number(a["evidence"].get("bound"), 3), day(a["closed_at"]) if a["closed_at"] else "open")
        for a in alerts[:_FIRST_ALERTS]
    ]  # fmt: skip
    summary = _table(f"Alerts ({len(alerts)})", ("signal", "alerts", "open", "first"), counted, right=("alerts", "open"))
    if not first:
        return [summary]
    title = f"The first {len(first)} alerts (all are in the report)"
    return [summary, _table(title, ("opened", "signal", "value", "bound", "closed"), first, right=("value", "bound"))]


def _held_back(account: Json) -> RenderableType:
    rows = [(day(h["at"]), h["what"], Text(", ".join(h["by"]) or "-", style="red"), h["why"]) for h in account["held_back"]]
    return _table(f"Held back ({len(rows)})", ("when", "what", "by", "what led to it"), rows)


def _months(account: Json) -> RenderableType:
    rows = [
        (m["month"], f"{m['rows']:,}", number(m["frozen"]), number(m["mulle"]), _lower(m["frozen"], m["mulle"]))
        for m in account["by_month"]
    ]
    columns = ("month", "labelled", "frozen", "Mulle", "lower by")
    return _table("MAE by month, in minutes", columns, rows, right=columns[1:])


def _lower(frozen: float | None, mulle: float | None) -> Text:
    if not frozen or mulle is None:
        return Text("-")
    share = 1 - mulle / frozen
    return Text(f"{share:.0%}", style="green" if share > 0 else "")


def _headline(account: Json) -> list[RenderableType]:
    frozen, mulle, lower = account["mae_frozen"], account["mae_mulle"], account["improvement"]
    told = Text.assemble(
        f"Mean MAE, {scored_span(account)}: ",
        (f"{number(frozen)} frozen", "bold"), " -> ", (f"{number(mulle)} Mulle", "bold green"),
        f"  ({lower:.1%} lower)" if lower is not None and lower > 0 else "",
    )  # fmt: skip
    failed = account["failed_requests"]
    machine = account["machine"]
    counts = Text.assemble(
        f"{account['requests']:,} requests answered over {account['connections']} connections, ",
        (f"{failed:,} failed", "bold red" if failed else "green"),
        f"; {account['rows']:,} flights predicted, {account['labelled']:,} landed, {account['never']:,} never will",
    )
    moves = f"{account['promotions']} automatic promotions, {len(account['held_back'])} held back, {len(account['runs'])} runs"
    wall = f"{account['seconds']:.0f} s on {machine['cores']} cores ({machine['system']}, Python {machine['python']})"
    return [told, Text.assemble(counts, "\n", moves, ", ", f"{len(account['alerts'])} alerts", "\n", wall)]


def _next(account: Json, folder: Path) -> RenderableType:
    where = f"--project {quote(str(folder))}"
    lines = [
        f"report   {folder / 'report.html'}",
        f"numbers  {folder / 'demo.json'}",
        "",
        "Try next:",
        f"  mulle status {where}",
        f"  mulle history {account['model']} {where}",
    ]
    if account["example"]:
        lines.append(f"  mulle explain {account['example']} {where}")
    return Text("\n".join(lines))
