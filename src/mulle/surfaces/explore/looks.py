"""The parts that look at a table: checks, columns, missing values, outliers, associations, target, time.

Each takes one table, or two versions of it (the earlier first), and gives nothing where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Sequence

from mulle.core.records.exploration import Exploration, Outliers
from mulle.surfaces.explore.figures import (
    associations_figure,
    checks_figure,
    holes_figure,
    information_figure,
    missing_figure,
    number_figure,
    rows_figure,
)
from mulle.surfaces.explore.parts import Part, code, grid, number, percent, plot, table

__all__ = ["associations", "checks", "columns", "missing", "outliers", "relation", "time"]

_POINTS = 200
_LINES = 10
_PAIRS = 8
_PATTERNS = 8

_RULE = (
    "A number is far out when it is below Q1 − 3 IQR or above Q3 + 3 IQR, where Q1 and Q3 are the quartiles and IQR is the "
    "distance between them: Tukey's outer fences (Exploratory Data Analysis, 1977). Counted over all rows. Far out is not wrong: "
    "skewed columns have many."
)


def checks(sides: Sequence[Exploration]) -> Part | None:
    """Failed rows by check over publishes, refusals and audits, and each check's latest result."""
    points = sides[-1].checks[-_POINTS:]
    if not points:
        return None
    worst = {name: max(p.failed.get(name, 0) for p in points) for p in points for name in p.failed}
    failing = sorted((n for n in worst if worst[n]), key=lambda n: -worst[n])
    rows = []
    for name in sorted(worst, key=lambda n: (-worst[n], n)):
        last = next(p for p in reversed(points) if name in p.failed)
        tone = {"pass": "good", "fail": "bad"}.get(last.verdicts[name], "dim")
        verdict = f'<span class="{tone}">{code(last.verdicts[name])}</span>'
        rows.append((code(name), verdict, code(last.label), number(last.failed[name]), number(last.rows), number(worst[name])))
    heads = ("check", "latest verdict", "at", "failed", "of rows", "most failed")
    note = (
        f"{len(points)} publishes, refusals and audits in the order of time. A circle is a published version, an open circle an "
        f"audit, a cross a batch that was refused. {len(worst) - len(failing)} of {len(worst)} checks never failed a row."
    )
    shown = failing[:_LINES]
    inner = (plot("checks-1") if shown else "") + table(heads, rows, numbers=heads[3:])
    return Part(
        anchor="checks",
        title="Check history",
        note=note,
        inner=inner,
        figures={"checks-1": checks_figure(points, shown)} if shown else {},
    )


def columns(sides: Sequence[Exploration]) -> Part | None:
    """skrub's report: summary, distributions, missing values and associations of every column."""
    if not any(side.report for side in sides):
        return None
    side = sides[-1]
    sampled = f"a seeded sample of {side.report_rows:,} rows" if side.report_rows < side.rows else "all rows"
    note = (
        f"Made by skrub on {sampled}; its associations on {side.association_rows:,}. "
        "Decimals and durations (in seconds) are shown as numbers, dates as instants (before 1678 and after 2261 as these), "
        "nested values as text."
    )
    if side.dropped:
        note += f" {len(side.dropped)} columns of {side.columns} are left out here and in the charts below."
    inner = "".join(
        (f"<h3>{code(one.name)}</h3>" if len(sides) > 1 else "") + f'<div class="report">{one.report}</div>' for one in sides
    )
    return Part(anchor="columns", title="Columns", note=note, inner=inner)


def missing(sides: Sequence[Exploration]) -> Part:
    """What is missing, and what is missing together."""
    shares: dict[str, float] = {}
    for side in sides:
        for p in side.profiles:
            if p.missing:
                shares[p.name] = max(shares.get(p.name, 0.0), p.missing / p.rows)
    names = sorted(shares, key=lambda n: -shares[n])[:40]
    if not names:
        return Part(anchor="missing", title="Missing values", note="No value is null or NaN.", inner="")
    note = f"Null or NaN, counted over all rows. {len(shares)} of {sides[-1].columns} columns have some."
    tables = "".join(_patterns(side, named=len(sides) > 1) for side in sides)
    return Part(
        anchor="missing",
        title="Missing values",
        note=note,
        inner=plot("missing-1") + tables,
        figures={"missing-1": missing_figure(sides, names)},
    )


def _patterns(side: Exploration, *, named: bool) -> str:
    rows = [
        (" ".join(code(c) for c in p.columns) or "complete rows", number(p.rows), percent(p.rows, side.rows))
        for p in side.missing[:_PATTERNS]
    ]
    of = f" in {code(side.name)}" if named else ""
    return f"<h3>Missing together{of}</h3>" + table(("columns", "rows", "share"), rows, numbers=("rows", "share"))


def outliers(sides: Sequence[Exploration]) -> Part | None:
    """Far-out numbers by column, with the rule."""
    found = [(side, o) for side in sides for o in side.outliers]
    if not found:
        return None
    judged = [(side, o) for side, o in found if o.low is not None and o.below + o.above]
    flat = sorted({o.column for _, o in found if o.low is None})
    clean = sorted({o.column for _, o in found} - {o.column for _, o in judged} - set(flat))
    most = {column: max(_far(o) for _, o in judged if o.column == column) for column in {o.column for _, o in judged}}
    judged.sort(key=lambda pair: (-most[pair[1].column], pair[1].column))
    several = len(sides) > 1
    rows = [((code(side.name),) if several else ()) + _outlier_cells(o) for side, o in judged]
    heads = ("share", "below", "above", "fences", "farthest values")
    inner = table((*(("version",) if several else ()), "column", *heads), rows, numbers=heads[:3]) if rows else ""
    for told, names in (("None in", clean), ("Not judged, because both quartiles are one value:", flat)):
        if names:
            inner += f'<p class="note">{told} {" ".join(code(n) for n in names)}</p>'
    return Part(anchor="outliers", title="Outliers", note=_RULE, inner=inner)


def _far(found: Outliers) -> float:
    return (found.below + found.above) / found.values


def _outlier_cells(o: Outliers) -> tuple[str, ...]:
    share = percent(o.below + o.above, o.values)
    fences, examples = f"{number(o.low)} to {number(o.high)}", ", ".join(number(v) for v in o.examples)
    return code(o.column), share, number(o.below), number(o.above), fences, examples


def associations(sides: Sequence[Exploration]) -> Part | None:
    """Which columns go together."""
    drawable = [side for side in sides if side.associations]
    if not drawable:
        return None
    last = drawable[-1]
    rows = [
        (code(p.left), code(p.right), f"{p.cramer_v:.2f}", "–" if p.pearson is None else f"{p.pearson:.2f}".replace("-", "−"))
        for p in last.associations[:_PAIRS]
    ]
    heads = ("column", "with", "Cramér's V", "Pearson")
    note = (
        "Cramér's V, 0 to 1, for columns of every kind (numbers in bins); Pearson's correlation for two numbers, on hover. "
        f"By skrub, on a seeded sample of {last.association_rows:,} rows: with few rows and many values V is too large."
    )
    figures = {f"associations-{at}": associations_figure(side) for at, side in enumerate(drawable)}
    captions = {f"associations-{at}": code(side.name) for at, side in enumerate(drawable)}
    drawn = grid(captions) if len(drawable) > 1 else plot("associations-0")
    inner = drawn.replace('class="many"', 'class="many pair"') + table(heads, rows, numbers=heads[2:])
    return Part(anchor="associations", title="Correlation and association", note=note, inner=inner, figures=figures)


def relation(sides: Sequence[Exploration]) -> Part | None:
    """What each column tells about the target."""
    with_target = [side for side in sides if side.target]
    if not with_target:
        return None
    side = with_target[-1]
    measured = [r.column for r in side.relations if r.information is not None]
    unmeasured = [f"{code(r.column)} ({r.why})" for r in side.relations if r.information is None]
    note = (
        f"Mutual information of each column with {side.target} in nats, on a seeded sample of {side.relations_rows:,} rows; "
        f"{side.task}. The mark is what the same estimate gives with the target shuffled: what does not exceed it tells nothing. "
        "A column that becomes known only with the target will rank high and is of no use to a model."
    )
    inner = plot("target-1") if measured else '<p class="dim">nothing could be measured</p>'
    if unmeasured:
        inner += f'<p class="note">Not measured: {", ".join(unmeasured)}.</p>'
    figures = {"target-1": information_figure(with_target, measured)} if measured else {}
    return Part(anchor="target", title="Relation to the target", note=note, inner=inner, figures=figures)


def time(sides: Sequence[Exploration]) -> Part | None:
    """Rows, numbers and missing values by period."""
    trends = {side.name: side.trend for side in sides if side.trend}
    if not trends:
        return None
    latest = list(trends.values())[-1]
    figures = {"time-rows": rows_figure(trends)}
    inner = "<h3>Rows</h3>" + plot("time-rows")
    if latest.missing:
        figures["time-missing"] = holes_figure(latest)
        inner += "<h3>Missing share</h3>" + plot("time-missing")
    varied = {p.name for side in sides for p in side.profiles if p.distinct > 1}
    names = [n for n in latest.numbers if n in varied]
    if names:
        figures |= {f"time-{at}": number_figure(trends, name) for at, name in enumerate(names)}
        inner += "<h3>Numbers</h3>" + grid({f"time-{at}": code(name) for at, name in enumerate(names)})
    undated = f" {latest.undated:,} rows have no plausible time." if latest.undated else ""
    note = (
        f"By {latest.column}, in periods of {latest.every} (UTC), over all rows.{undated} "
        "Numbers: median (line), mean (dotted), first to ninth decile (band)."
    )
    return Part(anchor="time", title="Over time", note=note, inner=inner, figures=figures)
