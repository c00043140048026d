"""Small pieces of the page: a part with its figures, tables, numbers in words; everything that came from data is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from mulle.core.records.base import Json

__all__ = ["Part", "code", "drawn", "grid", "number", "percent", "plot", "short", "table", "words"]

_LONG = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One section of the page.

    Attributes
    ----------
    anchor : str
        Its id; those of its plots begin with it.
    title, note : str
        As text.
    inner : str
        HTML, with a `plot` for each figure.
    figures : mapping
        Plot id to Plotly figure.
    """

    anchor: str
    title: str
    note: str
    inner: str
    figures: Mapping[str, Json] = field(default_factory=dict)


def drawn(part: Part) -> str:
    """Give a part as HTML."""
    told = f'<p class="note">{escape(part.note)}</p>' if part.note else ""
    return f'<section id="{escape(part.anchor)}"><h2>{escape(part.title)}</h2>{told}{part.inner}</section>'


def plot(anchor: str) -> str:
    """Give the place of a figure."""
    return f'<div id="{escape(anchor)}" class="plot"></div>'


def grid(anchors: Mapping[str, str]) -> str:
    """Give places for many small figures, each below its caption (HTML)."""
    cells = "".join(f"<figure><figcaption>{caption}</figcaption>{plot(a)}</figure>" for a, caption in anchors.items())
    return f'<div class="many">{cells}</div>'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()) -> str:
    """Give a table of cells that are HTML; `numbers` are set to the right."""
    kinds = ["number" if c in numbers else "" for c in columns]
    head = "".join(f'<th class="{k}">{escape(c)}</th>' for c, k in zip(columns, kinds, strict=True))
    body = [
        "<tr>" + "".join(f'<td class="{k}">{cell}</td>' for cell, k in zip(row, kinds, strict=True)) + "</tr>" for row in rows
    ]
    if not body:
        return '<p class="dim">none</p>'
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def number(value: object) -> str:
    """Give a number as a person reads it; text and instants as they are, nothing as a dash. HTML.

    Examples
    --------
    >>> number(1234567), number(0.012345), number(None), number("<b>")
    ('1,234,567', '0.01235', '–', '&lt;b&gt;')
    """
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return words(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15) or 1e4 <= abs(value) < 1e15:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def percent(part: float, whole: float) -> str:
    """Give a share in percent, with the digits that it needs; a share that is not nothing never reads 0%.

    Examples
    --------
    >>> percent(1, 4), percent(1, 100_000), percent(0, 5), percent(0, 0)
    ('25%', '0.001%', '0%', '–')
    """
    if not whole:
        return "–"
    share = 100 * part / whole
    return f"{share:.0f}%" if share == 0 or share >= 99.95 else f"{share:.3g}%" if share >= 0.01 else f"{share:.1g}%"


def short(text: object, longest: int = _LONG) -> str:
    """Cut a text that would not fit.

    Examples
    --------
    >>> short("abcdef", 4)
    'abc…'
    """
    told = str(text)
    return told if len(told) <= longest else told[: longest - 1] + "…"


def words(value: object) -> str:
    """Give a value as HTML, cut when it is long."""
    return escape(short(value, 2 * _LONG))


def code(value: object) -> str:
    """Give a name as HTML, cut when it is long; its whole length shows on hover."""
    told = str(value)
    full = f' title="{escape(told)}"' if len(told) > _LONG else ""
    return f"<code{full}>{escape(short(told))}</code>" if told else '<span class="dim">(no name)</span>'
