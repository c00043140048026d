"""One page that needs no network: a table from every side, or two versions of it side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from string import Template

from mulle.core.records.exploration import Comparison, Exploration
from mulle.surfaces.demo.report import inlined_plotly
from mulle.surfaces.explore import changes, looks
from mulle.surfaces.explore.parts import Part, drawn, number, percent, words

__all__ = ["render"]

Look = Callable[[Sequence[Exploration]], Part | None]

_LOOKS: tuple[Look, ...] = (
    looks.checks, looks.columns, looks.missing, looks.outliers, looks.associations, looks.relation, looks.time,
)  # fmt: skip


def render(found: Exploration | Comparison, plotly: str | None = None) -> str:
    """Write the page.

    Parameters
    ----------
    found : Exploration or Comparison
    plotly : str, optional
        The source of plotly.js, put into the page once; the installed one when not given.

    Returns
    -------
    str
        HTML. No name or value of the data is taken as markup, and nothing is loaded from elsewhere.
    """
    if isinstance(found, Comparison):
        sides: tuple[Exploration, ...] = (found.before, found.after)
        first: list[Part | None] = [
            changes.schema(found.difference), changes.distributions(found), changes.rows(found.difference),
        ]  # fmt: skip
        title, cards = f"{found.before.name} and {found.after.name}", _compared(found)
    else:
        sides, first = (found,), []
        title, cards = found.name, _cards(found)
    parts = [part for part in (*first, *(look(sides) for look in _LOOKS)) if part is not None]
    body = [_head(title, sides), cards, _contents(parts), *(drawn(part) for part in parts), _foot(sides)]
    figures = {anchor: figure for part in parts for anchor, figure in part.figures.items()}
    house, own = files("mulle.surfaces.demo") / "page", files("mulle.surfaces.explore") / "page"
    return Template((house / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style="\n".join((part / name).read_text(encoding="utf-8") for part, name in ((house, "page.css"), (own, "explore.css"))),
        body="\n".join(body),
        plotly=inlined_plotly() if plotly is None else plotly,
        # A value could end the script, or open a comment in it.
        figures=json.dumps(figures, allow_nan=False).replace("<", "\\u003c"),
        script=(house / "page.js").read_text(encoding="utf-8"),
    )


def _head(title: str, sides: Sequence[Exploration]) -> str:
    lead = " and ".join(f"{side.rows:,} rows × {side.columns} columns" for side in sides)
    facts = "".join(_facts(side, named=len(sides) > 1) for side in sides)
    return f'<header><h1>{escape(title)}</h1><p class="lead">{lead}</p>{facts}</header>'


def _facts(side: Exploration, *, named: bool) -> str:
    told = {**({"version": side.name} if named else {}), **side.facts}
    if not side.facts:
        return ""
    pairs = "".join(f"<div><dt>{words(name)}</dt><dd>{words(value)}</dd></div>" for name, value in told.items())
    return f'<dl class="facts">{pairs}</dl>'


def _cards(found: Exploration) -> str:
    cells, gone = found.rows * found.columns, sum(p.missing for p in found.profiles)
    holed = sum(bool(p.missing) for p in found.profiles)
    far = [o for o in found.outliers if o.below + o.above]
    strongest = found.relations[0] if found.relations and found.relations[0].information is not None else None
    last = found.checks[-1] if found.checks else None
    failed = sorted(n for n, v in last.verdicts.items() if v != "pass") if last else []
    return _shown(
        ("Rows", f"{found.rows:,}", f"{found.columns} columns"),
        ("Missing values", percent(gone, cells), f"in {holed} of {found.columns} columns"),
        ("Columns with outliers", number(len(far)), f"of {len(found.outliers)} with numbers"),
        (
            "Tells most about the target",
            words(strongest.column) if strongest else "–",
            f"{strongest.information:.2f} nats about {found.target}" if strongest else "no target",
        ),
        (
            "Checks not passed",
            f'<span class="{"bad" if failed else "good"}">{len(failed)}</span>' if last else "–",
            f"of {len(last.verdicts)}, {last.label}" if last else "no check has run",
        ),
    )


def _compared(found: Comparison) -> str:
    told = found.difference
    schema = len(told.columns_added) + len(told.columns_removed) + len(told.columns_retyped)
    top = told.columns[0] if told.columns else None
    return _shown(
        ("Rows added", f"{told.added:,}", f"{percent(told.added, told.rows_after)} of the later version"),
        ("Rows changed", f"{told.changed:,}", f"{percent(told.changed, told.rows_before)} of the earlier"),
        ("Rows removed", f"{told.removed:,}", f"{percent(told.removed, told.rows_before)} of the earlier"),
        ("Schema changes", f"{schema:,}", "columns added, removed or retyped"),
        (
            "Moved most",
            words(top.column) if top else "–",
            f"PSI {number(round(top.psi, 3))}" if top else "no column in both",
        ),
    )


def _shown(*cards: tuple[str, str, str]) -> str:
    # A figure is HTML already; label and detail are text.
    made = "".join(
        f'<div class="card"><div class="label">{escape(label)}</div><div class="figure">{figure}</div>'
        f'<div class="detail">{escape(detail)}</div></div>'
        for label, figure, detail in cards
    )
    return f'<div class="cards">{made}</div>'


def _contents(parts: Sequence[Part]) -> str:
    links = "".join(f'<a href="#{escape(part.anchor)}">{escape(part.title)}</a>' for part in parts)
    return f'<nav aria-label="Contents">{links}</nav>'


def _foot(sides: Sequence[Exploration]) -> str:
    names = escape(" and ".join(side.name for side in sides))
    return (
        f"<footer>Written by <code>mulle data explore</code> from {names}. It shows values of the data: share it as you would "
        "share the data.</footer>"
    )
